"""From requests to hypotheses: each shape is compiled once, results come in the order asked."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqlab.errors import SeqlabError
from seqlab.search.beam import Hypotheses, beam_search
from seqlab.search.coverage import with_coverage
from seqlab.search.ensemble import Ensemble, has_attention
from seqlab.search.greedy import greedy_search
from seqlab.search.processors import NEVER, NO_OPTIONS, Options, make_processors
from seqlab.search.requests import POSITIONS, Asked, Request, batches, check_request, collate
from seqlab.search.rules import DEFAULT, Rules
from seqlab.search.sampling import sample
from seqlab.types import Generator, Params

AXIS = "rows"


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


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """Devices in a row, for the rows of a batch."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


@functools.lru_cache(maxsize=16)
def make_search(model: Any, eos: int, method: Method, mesh: Mesh) -> Callable[..., Hypotheses]:
    """The jitted function behind every decoding: (params, asked, weights, seed, length) to hypotheses. The rows of
    what is asked are split over the devices of the mesh, and none waits for another.
    """
    beam, wanted, rules, options, sampling, groups, covering = method
    processors = make_processors(options)

    def search(params: Params, asked: Asked, weights: Weights, seed: jax.Array, length: int) -> Hypotheses:
        inputs, prompt, limit, least, numbers, prefix, phrases = asked
        position = prompt.ids.shape[1] - 1
        memory, state = model.apply(params, inputs, prompt, position + length, beam, method=type(model).start)

        def run(method: Any) -> Callable[..., Any]:
            return lambda state, token, t: model.apply(params, memory, state, token, t, method=method)

        step, reorder, reward = run(type(model).step), model.reorder, None
        if covering and inputs is not None:
            step, reorder, state, reward = with_coverage(
                run(type(model).attentive_step), reorder, state, inputs.mask, beam, weights.coverage
            )
        first = prompt.ids[:, -1]
        shared: dict[str, Any] = {
            "length": length,
            "eos": eos,
            "alpha": weights.alpha,
            "word_penalty": weights.word_penalty,
            "processors": processors,
            "scored": getattr(model, "scored", False),
            "prefix": prefix,
        }
        if sampling:
            rule = (rules or DEFAULT).length
            return sample(
                step, state, first, position, limit, least, numbers, samples=beam, seed=seed, rule=rule, **shared
            )
        if rules is None:
            return greedy_search(step, state, first, position, limit, least, **shared)
        return beam_search(
            step, reorder, state, first, position, limit, least, beam=beam, wanted=wanted, rules=rules,
            phrases=phrases, groups=groups, diversity=weights.diversity, reward=reward, **shared,
        )  # fmt: skip

    @functools.partial(jax.jit, static_argnames="length")
    def everywhere(params: Params, asked: Asked, weights: Weights, seed: jax.Array, length: int) -> Hypotheses:
        run = functools.partial(search, length=length)
        if mesh.size == 1:
            return run(params, asked, weights, seed)
        whole, rows = PartitionSpec(), PartitionSpec(AXIS)
        # The loop's first state is the same on all devices, and later ones are not: this is meant.
        split = jax.shard_map(run, mesh=mesh, in_specs=(whole, rows, whole, whole), out_specs=rows, check_vma=False)
        return split(params, asked, weights, seed)

    return everywhere


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
    search = make_search(model, eos, method, mesh)
    results: list[list[Result]] = [[] for _ in requests]
    waiting: list[tuple[list[int], Hypotheses]] = []

    def collect() -> None:
        chosen, hypotheses = waiting.pop(0)
        tokens, lengths, scores, log_probs = (
            np.asarray(x) for x in (hypotheses.tokens, hypotheses.lengths, hypotheses.scores, hypotheses.log_probs)
        )
        for row, index in enumerate(chosen):
            results[index] = [
                Result(
                    tokens[row, k, : lengths[row, k]].tolist(),
                    float(scores[row, k]),
                    float(log_probs[row, k]),
                )
                for k in range(wanted)
                if log_probs[row, k] > NEVER / 2
            ]
        progress(len(chosen))

    for chosen, shape in batches(requests, beam, getattr(model, "longest", None), batch_tokens, len(devices)):
        asked = collate([requests[i] for i in chosen], shape)
        waiting.append((chosen, search(params, asked, weights, seed or 0, length=shape[-1])))
        if len(waiting) > 1:  # one batch is always under way while the last one is read
            collect()
    while waiting:
        collect()
    return results
