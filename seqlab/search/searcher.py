"""The jitted functions of decoding with any generator: greedy search, beam search and sampling."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqlab.search.beam import beam_search
from seqlab.search.beam_state import begin_beam
from seqlab.search.coverage import begin_coverage, with_coverage
from seqlab.search.decoder import Decoder, Span, Step
from seqlab.search.ensemble import Ensemble
from seqlab.search.greedy import greedy_search
from seqlab.search.hypotheses import Hypotheses
from seqlab.search.requests import RequestBatch
from seqlab.search.sampling import sample
from seqlab.search.scheduler import join_rows
from seqlab.search.sequences import begin_sequences
from seqlab.search.settings import ScoreWeights, StaticSettings
from seqlab.types import Params

AXIS = "rows"


class ActiveRows(struct.PyTreeNode):
    """Sentences that are being decoded. Every leaf is [B ...], so that rows can be removed and joined."""

    memory: Any
    search_state: Any  # a BeamState or a SequenceState
    requests: RequestBatch

    def __len__(self) -> int:
        return self.requests.limit.shape[0]


class Searcher(NamedTuple):
    """The jitted functions of decoding.

    begin(params, requests, length): rows before their first step, with room for `length` tokens.
    advance(params, rows, begin, end, weights, seed, prompt_end, max_length): rows after step `end`, or once all of
        them are done; their last prompt tokens are at position `prompt_end`, and no text is longer than `max_length`.
    grow(rows, more): rows with room for `more` additional tokens.
    join(parts, indices): rows of several batches, by indices into their concatenation.
    results(rows): their hypotheses so far.
    """

    begin: Callable[..., ActiveRows]
    advance: Callable[..., ActiveRows]
    grow: Callable[..., ActiveRows]
    join: Callable[..., ActiveRows]
    results: Callable[..., Hypotheses]


@functools.lru_cache(maxsize=16)
def make_searcher(model: Any, static: StaticSettings, mesh: Mesh) -> Searcher:
    """Returns the functions for a model. The rows of a batch are split over the devices of the mesh, which do not
    wait for each other between steps.
    """

    def split(function: Callable[..., Any], *by_row: bool) -> Callable[..., Any]:
        """Returns the function on each device's own rows. `by_row` says which arguments are split."""
        if mesh.size == 1:
            return function
        specs = tuple(PartitionSpec(AXIS) if rows else PartitionSpec() for rows in by_row)
        # Unchecked, because the loop's first state is the same on all devices, and later states are not.
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False)

    @functools.partial(jax.jit, static_argnames="length")
    def begin(params: Params, requests: RequestBatch, length: int) -> ActiveRows:
        return split(functools.partial(begin_rows, model, static, length), False, True)(params, requests)

    @functools.partial(jax.jit, static_argnames=("prompt_end", "max_length"), donate_argnames="rows")
    def advance(
        params: Params, rows: ActiveRows, begin: Any, end: Any, weights: ScoreWeights, seed: Any, *,
        prompt_end: int, max_length: int,
    ) -> ActiveRows:  # fmt: skip
        def run(params: Params, rows: ActiveRows, begin: Any, end: Any, weights: ScoreWeights, seed: Any) -> Any:
            span = Span(begin, end, prompt_end, max_length)
            return advance_rows(model, static, params, rows, span, weights, seed)

        return split(run, False, True, *[False] * 4)(params, rows, begin, end, weights, seed)

    def grow(rows: ActiveRows, more: int) -> ActiveRows:
        state = rows.search_state.state
        state = (model.grow(state[0], more), state[1]) if static.coverage else model.grow(state, more)
        return rows.replace(search_state=rows.search_state.grow(state, more))

    return Searcher(
        begin,
        advance,
        jax.jit(grow, static_argnames="more"),
        jax.jit(join_rows, out_shardings=NamedSharding(mesh, PartitionSpec(AXIS))),
        jax.jit(lambda rows: rows.search_state.results()),
    )


def begin_rows(model: Any, static: StaticSettings, length: int, params: Params, requests: RequestBatch) -> ActiveRows:
    inputs, prompt = requests.inputs, requests.prompt
    capacity = prompt.ids.shape[1] - 1 + length
    memory, state = model.apply(params, inputs, prompt, capacity, static.beam, method=type(model).start)
    if static.coverage:
        state = begin_coverage(state, inputs.mask, static.beam)  # pyright: ignore[reportOptionalMemberAccess]
    if static.greedy or static.sampling:
        search_state = begin_sequences(state, prompt.ids[:, -1], length=length, hypotheses=static.beam)
    else:
        search_state = begin_beam(state, requests, static, length)
    return ActiveRows(memory, search_state, requests)


def advance_rows(
    model: Any,
    static: StaticSettings,
    params: Params,
    rows: ActiveRows,
    span: Span,
    weights: ScoreWeights,
    seed: jax.Array,
) -> ActiveRows:
    decoder = decoder_of(model, params, rows, static, weights)
    arguments = decoder, rows.search_state, rows.requests, span, static, weights
    if static.sampling:
        search_state = sample(*arguments, seed)
    elif static.greedy:
        search_state = greedy_search(*arguments)
    else:
        search_state = beam_search(*arguments)
    return rows.replace(search_state=search_state)


def decoder_of(
    model: Any, params: Params, rows: ActiveRows, static: StaticSettings, weights: ScoreWeights
) -> Decoder:
    """Returns the model's functions of its state, bound to its parameters and the memory of the rows."""

    def bind(method: Any) -> Step:
        return lambda state, token, t: model.apply(params, rows.memory, state, token, t, method=method)

    normalized = isinstance(model, Ensemble)  # its steps return scores, not logits
    if not static.coverage:
        return Decoder(bind(type(model).step), model.reorder, normalized=normalized)
    mask: Any = rows.requests.inputs.mask  # pyright: ignore[reportOptionalMemberAccess]
    step, reorder, reward = with_coverage(bind(type(model).attentive_step), model.reorder, mask, weights.coverage)  # pyright: ignore[reportArgumentType]
    return Decoder(step, reorder, reward, normalized)


def whole_search(
    searcher: Searcher, params: Params, requests: RequestBatch, weights: ScoreWeights, seed: Any, length: int
) -> Hypotheses:
    """Returns the results of a search from beginning to end, without intermediate checks by the host."""
    rows = searcher.begin(params, requests, length=length)
    span = {"prompt_end": requests.prompt.ids.shape[1] - 1, "max_length": length}
    return searcher.results(searcher.advance(params, rows, 0, length, weights, seed, **span))


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """Returns a mesh of one axis, over which the rows of a batch are split."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
