"""The jitted functions behind every decoding: greedy, by a beam, or of samples, of any generator."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqlab.search.beam import Hypotheses, beam_search, begin_beam
from seqlab.search.coverage import begin_coverage, with_coverage
from seqlab.search.ensemble import grown
from seqlab.search.greedy import begin_writing, greedy_search
from seqlab.search.processors import NO_OPTIONS, Options, make_processors
from seqlab.search.requests import RequestBatch
from seqlab.search.rules import DEFAULT, Rules
from seqlab.search.sampling import sample
from seqlab.types import Params

AXIS = "rows"


class Weights(NamedTuple):
    """What scores and choices hinge on, and may change without a compilation."""

    alpha: float = 0.6
    word_penalty: float = 0.0
    coverage: float = 0.0
    diversity: float = 0.0


class Method(NamedTuple):
    """What is compiled: how many hypotheses a sentence has, how many of them are asked for, by which rules; None is
    greedy search, or samples if `sampling`. A beam may be of groups.
    """

    beam: int = 5
    wanted: int = 1
    rules: Rules | None = DEFAULT
    options: Options = NO_OPTIONS
    sampling: bool = False
    groups: int = 1
    covering: bool = False


DEFAULT_WEIGHTS = Weights()


class Rows(struct.PyTreeNode):
    """Sentences that are being decoded: every leaf [B ...], so that some can leave."""

    memory: Any
    search: Any  # a Search, or a Writing
    asked: RequestBatch

    def __len__(self) -> int:
        return self.asked.limit.shape[0]


class Searcher(NamedTuple):
    """The jitted functions behind every decoding.

    begin(params, asked, length): rows before their first step, with room for `length` tokens.
    go_on(params, rows, begin, end, weights, seed, start, most): rows after step `end`, or once all of them are done;
        their prompts end at position `start`, and none may become longer than `most`.
    grow(rows, more): rows with room for `more` tokens.
    join(parts, chosen): some of the rows of several, counted through.
    results(rows): their hypotheses so far.
    """

    begin: Callable[..., Rows]
    go_on: Callable[..., Rows]
    grow: Callable[..., Rows]
    join: Callable[..., Rows]
    results: Callable[..., Hypotheses]


@functools.lru_cache(maxsize=16)
def make_searcher(model: Any, eos: int, method: Method, mesh: Mesh) -> Searcher:
    """The rows of a batch are split over the devices of the mesh, and none waits for another between two steps."""
    beam, wanted, rules, options, sampling, groups, covering = method
    processors = make_processors(options)

    def begin(params: Params, asked: Any, length: int) -> Rows:
        capacity = asked.prompt.ids.shape[1] - 1 + length
        memory, state = model.apply(params, asked.inputs, asked.prompt, capacity, beam, method=type(model).start)
        if covering:
            state = begin_coverage(state, asked.inputs.mask, beam)
        first, phrases = asked.prompt.ids[:, -1], asked.phrases
        if rules is None or sampling:
            search = begin_writing(state, first, length=length, hypotheses=beam)
        else:
            search = begin_beam(state, first, asked.limit, phrases, length=length, beam=beam, groups=groups)
        return Rows(memory, search, asked)

    def go_on(
        params: Params, rows: Rows, begin: jax.Array, end: jax.Array, weights: Weights, seed: jax.Array, *,
        start: int, most: int,
    ) -> Rows:  # fmt: skip
        asked: Any = rows.asked

        def run(method: Any) -> Callable[..., Any]:
            return lambda state, token, t: model.apply(params, rows.memory, state, token, t, method=method)

        step, reorder, reward = run(type(model).step), model.reorder, None
        if covering:
            step, reorder, reward = with_coverage(
                run(type(model).attentive_step), reorder, asked.inputs.mask, weights.coverage
            )
        span = (begin, end, start, asked.limit, asked.least)
        shared: dict[str, Any] = {
            "eos": eos,
            "alpha": weights.alpha,
            "word_penalty": weights.word_penalty,
            "processors": processors,
            "scored": getattr(model, "scored", False),
            "prefix": asked.prefix,
        }
        if sampling:
            rule = (rules or DEFAULT).length
            search = sample(step, rows.search, *span, asked.numbers, seed=seed, rule=rule, **shared)
        elif rules is None:
            search = greedy_search(step, rows.search, *span, **shared)
        else:
            search = beam_search(
                step, reorder, rows.search, *span, most=most, wanted=wanted, rules=rules, phrases=asked.phrases,
                diversity=weights.diversity, reward=reward, **shared,
            )  # fmt: skip
        return rows.replace(search=search)

    def grow(rows: Rows, more: int) -> Rows:
        state = rows.search.state
        state = (grown(model, state[0], more), state[1]) if covering else grown(model, state, more)
        return rows.replace(search=rows.search.longer(state, more))

    def join(parts: Sequence[Rows], chosen: jax.Array) -> Rows:
        return jax.tree.map(lambda *x: jnp.concatenate(x)[chosen], *parts)

    def split(function: Callable[..., Any], *parts: bool) -> Callable[..., Any]:
        """The function on each device's own rows, which are those arguments of which `parts` is true."""
        if mesh.size == 1:
            return function
        specs = tuple(PartitionSpec(AXIS) if part else PartitionSpec() for part in parts)
        # The loop's first state is the same on all devices, and later ones are not: this is meant.
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False)

    @functools.partial(jax.jit, static_argnames="length")
    def begin_all(params: Params, asked: RequestBatch, length: int) -> Rows:
        return split(functools.partial(begin, length=length), False, True)(params, asked)

    @functools.partial(jax.jit, static_argnames=("start", "most"), donate_argnames="rows")
    def go_on_all(
        params: Params, rows: Rows, begin: Any, end: Any, weights: Weights, seed: Any, *, start: int, most: int
    ) -> Rows:
        run = functools.partial(go_on, start=start, most=most)
        return split(run, False, True, *[False] * 4)(params, rows, begin, end, weights, seed)

    return Searcher(
        begin_all,
        go_on_all,
        jax.jit(grow, static_argnames="more"),
        jax.jit(join, out_shardings=NamedSharding(mesh, PartitionSpec(AXIS))),
        jax.jit(lambda rows: rows.search.results()),
    )


def whole_search(
    searcher: Searcher, params: Params, asked: RequestBatch, weights: Weights, seed: Any, length: int
) -> Hypotheses:
    """A search from beginning to end, on the device alone."""
    rows = searcher.begin(params, asked, length=length)
    start = asked.prompt.ids.shape[1] - 1
    return searcher.results(searcher.go_on(params, rows, 0, length, weights, seed, start=start, most=length))


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """Devices in a row, for the rows of a batch."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
