"""From requests to hypotheses: each shape is compiled once, results come in the order asked."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqlab.errors import SeqlabError
from seqlab.search.beam import Hypotheses, beam_search, begin_beam
from seqlab.search.coverage import begin_coverage, with_coverage
from seqlab.search.ensemble import Ensemble, grown, has_attention
from seqlab.search.greedy import begin_writing, greedy_search
from seqlab.search.processors import NEVER, NO_OPTIONS, Options, make_processors
from seqlab.search.requests import POSITIONS, ROWS, Asked, Request, batches, check_request, collate
from seqlab.search.rules import DEFAULT, Rules
from seqlab.search.sampling import sample
from seqlab.types import Generator, Params

AXIS = "rows"
BLOCK = 4  # steps between looks at what is done
ROOM = 16  # tokens that there is room for at first; then twice as many, and so on


class Result(NamedTuple):
    """Generated ids with EOS; the score normalized by length; the plain log-probability."""

    ids: list[int]
    score: float
    log_prob: float


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
    asked: Asked


class Searcher(NamedTuple):
    """The jitted functions behind every decoding.

    begin(params, asked, length): rows before their first step, with room for `length` tokens.
    go_on(params, rows, begin, end, weights, seed, start, most): rows after step `end`, or once all of them are done;
        their prompts end at position `start`, and none may become longer than `most`.
    grow(rows, more): rows with room for `more` tokens.
    take(rows, chosen): some of the rows.
    results(rows): their hypotheses so far.
    """

    begin: Callable[..., Rows]
    go_on: Callable[..., Rows]
    grow: Callable[..., Rows]
    take: Callable[..., Rows]
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

    def take(rows: Rows, chosen: jax.Array) -> Rows:
        return jax.tree.map(lambda x: x[chosen], rows)

    def split(function: Callable[..., Any], *parts: bool) -> Callable[..., Any]:
        """The function on each device's own rows, which are those arguments of which `parts` is true."""
        if mesh.size == 1:
            return function
        specs = tuple(PartitionSpec(AXIS) if part else PartitionSpec() for part in parts)
        # The loop's first state is the same on all devices, and later ones are not: this is meant.
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False)

    @functools.partial(jax.jit, static_argnames="length")
    def begin_all(params: Params, asked: Asked, length: int) -> Rows:
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
        jax.jit(take, out_shardings=NamedSharding(mesh, PartitionSpec(AXIS))),
        jax.jit(lambda rows: rows.search.results()),
    )


def whole_search(
    searcher: Searcher, params: Params, asked: Asked, weights: Weights, seed: Any, length: int
) -> Hypotheses:
    """A search from beginning to end, on the device alone."""
    rows = searcher.begin(params, asked, length=length)
    start = asked.prompt.ids.shape[1] - 1
    return searcher.results(searcher.go_on(params, rows, 0, length, weights, seed, start=start, most=length))


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """Devices in a row, for the rows of a batch."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def generate(
    model: Generator | Ensemble,
    params: Params,
    requests: Sequence[Request],
    *,
    eos: int,
    beam: int = 5,
    wanted: int = 1,
    weights: Weights = DEFAULT_WEIGHTS,
    rules: Rules | None = None,
    options: Options = NO_OPTIONS,
    groups: int = 1,
    seed: int | None = None,
    batch_tokens: int = POSITIONS,
    devices: Sequence[Any] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> list[list[Result]]:
    """The `wanted` best results of every request, best first (fewer where fewer exist), in the order of `requests`.

    Without `rules` search is greedy if `beam` is 1, else a beam search by the default ones. With a `seed` there is no
    search: `beam` samples are drawn, by the options. A batch has at most `batch_tokens` positions of sources and
    hypotheses on each of the `devices`, which share it; all of this process, if none are named.
    `progress` is told how many sentences each finished batch held. Raises for what cannot be had.
    """
    devices = tuple(devices or jax.local_devices())
    if not 1 <= wanted <= beam:
        raise SeqlabError(f"a beam of {beam} holds 1 to {beam} hypotheses a sentence, not {wanted}")
    if beam % groups:
        raise SeqlabError(f"{groups} groups do not divide a beam of {beam}")
    if weights.coverage and not has_attention(model):
        raise SeqlabError("the coverage penalty is of models that attend to a source, and this one does not")
    rules = rules or (None if beam == 1 else DEFAULT)
    searching = rules is not None and seed is None
    if weights.coverage and not searching:
        raise SeqlabError("the coverage penalty ranks the hypotheses of a beam: --beam 2 or more, and no samples")
    for i, request in enumerate(requests):
        check_request(f"line {request.number}" if request.number else f"request {i}", request, model, beam, options)
        if request.phrases and (not searching or groups > 1 or (rules or DEFAULT).after != "refill"):
            raise SeqlabError(
                "phrases that must be written need a beam without groups, and a preset that fills it up again"
            )
    method = Method(beam, wanted, rules, options, seed is not None, groups, bool(weights.coverage))
    mesh = make_mesh(devices)
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    searcher = make_searcher(model, eos, method, mesh)
    results: list[list[Result]] = [[] for _ in requests]

    def decode(chosen: Sequence[int], shape: tuple[int, int, int, int]) -> Iterator[None]:
        """Decodes a batch in blocks of steps; gives way where the device is busy with one."""
        most, start = shape[-1], shape[-2] - 1
        room, at, live = min(ROOM, most), 0, np.arange(shape[0])
        rows = searcher.begin(params, collate([requests[i] for i in chosen], shape), length=room)
        while True:
            end = min(at + BLOCK, most)
            if end > room:
                more = min(room, most - room)
                rows, room = searcher.grow(rows, more=more), room + more
            rows = searcher.go_on(params, rows, at, end, weights, seed or 0, start=start, most=most)
            yield
            done, at = np.asarray(rows.search.done), end
            if done.all() or at == most:
                keep(chosen, live, np.arange(len(live)), rows)
                return
            going = np.flatnonzero(~done)
            size = next(size for size in sizes if size >= len(going))
            if size < len(live):
                keep(chosen, live, np.flatnonzero(done), rows)
                left = np.resize(going, size)
                live = np.where(np.arange(size) < len(going), live[left], len(chosen))
                rows = searcher.take(rows, left)

    def keep(chosen: Sequence[int], live: Any, which: np.ndarray, rows: Rows) -> None:
        """Notes the results of some rows, of which `live` says which of the `chosen` requests they are of."""
        found = searcher.results(rows)
        tokens, lengths, scores, log_probs = map(
            np.asarray, (found.tokens, found.lengths, found.scores, found.log_probs)
        )
        mine = [row for row in which if live[row] < len(chosen)]
        for row in mine:
            results[chosen[int(live[row])]] = [
                Result(tokens[row, k, : lengths[row, k]].tolist(), float(scores[row, k]), float(log_probs[row, k]))
                for k in range(wanted)
                if log_probs[row, k] > NEVER / 2
            ]
        progress(len(mine))

    sizes = [rows * len(devices) for rows in ROWS]
    todo = iter(batches(requests, beam, getattr(model, "longest", None), batch_tokens, len(devices)))
    # Two batches take turns, so that the device works on one while the host looks at the other.
    turns = collections.deque(decode(*batch) for batch in itertools.islice(todo, 2))
    while turns:
        one = turns.popleft()
        if next(one, one) is one:
            turns.extend(decode(*batch) for batch in itertools.islice(todo, 1))
        else:
            turns.append(one)
    return results
