"""From requests of token ids to hypotheses: few shapes, each compiled once, results in the order asked."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from seqlab.errors import SeqlabError
from seqlab.search.beam import Hypotheses, beam_search
from seqlab.search.ensemble import Ensemble
from seqlab.search.greedy import greedy_search
from seqlab.search.processors import NEVER, NO_OPTIONS, Options, make_processors
from seqlab.search.rules import DEFAULT, Rules
from seqlab.search.sampling import sample
from seqlab.types import Generator, Params, Tokens

ROWS = (1, 8, 64)  # sentences a batch; the smallest that holds what is left is taken
LONGEST = 1 << 13  # most tokens of a source or a prompt, where the model sets no bound: memory grows with its square
POSITIONS = 1 << 16  # most positions of sources and hypotheses a batch: long lines come in smaller batches


class Request(NamedTuple):
    """One text to decode: source ids (None for a language model), prompt ids, most tokens to write; of a document,
    which sentence each token of the source is of; least tokens to write (both counts include EOS); a number, on which
    hinges what is drawn for it.
    """

    source: Sequence[int] | None
    prompt: Sequence[int]
    limit: int
    sentences: Sequence[int] | None = None
    least: int = 1
    number: int = 0


class Result(NamedTuple):
    """Generated ids with EOS; the score normalized by length; the plain log-probability."""

    ids: list[int]
    score: float
    log_prob: float


@functools.lru_cache(maxsize=16)
def make_search(
    model: Any,
    eos: int,
    beam: int,
    wanted: int,
    rules: Rules | None = None,
    options: Options = NO_OPTIONS,
    sampling: bool = False,
) -> Callable[..., Hypotheses]:
    """The jitted function behind every decoding: (params, inputs, prompt, limit, least, numbers, alpha, word_penalty,
    seed, length) to hypotheses. Without `rules` the search is greedy; `sampling` draws `beam` samples instead.
    """
    processors = make_processors(options)

    @functools.partial(jax.jit, static_argnames="length")
    def search(
        params: Params,
        inputs: Tokens | None,
        prompt: Tokens,
        limit: Int[Array, "B"],
        least: Int[Array, "B"],
        numbers: Int[Array, "B"],
        alpha: jax.Array,
        word_penalty: jax.Array,
        seed: jax.Array,
        length: int,
    ) -> Hypotheses:
        position = prompt.ids.shape[1] - 1
        memory, state = model.apply(params, inputs, prompt, position + length, beam, method=type(model).start)

        def step(state: Any, token: jax.Array, t: jax.Array) -> Any:
            return model.apply(params, memory, state, token, t, method=type(model).step)

        first = prompt.ids[:, -1]
        asked: dict[str, Any] = {
            "length": length,
            "eos": eos,
            "alpha": alpha,
            "word_penalty": word_penalty,
            "processors": processors,
            "scored": getattr(model, "scored", False),
        }
        if sampling:
            rule = (rules or DEFAULT).length
            return sample(
                step, state, first, position, limit, least, numbers, samples=beam, seed=seed, rule=rule, **asked
            )
        if rules is None:
            return greedy_search(step, state, first, position, limit, least, **asked)
        return beam_search(
            step, model.reorder, state, first, position, limit, least, beam=beam, wanted=wanted, rules=rules, **asked
        )

    return search


def most_tokens(model: Any) -> int:
    """How many tokens of a source or a prompt can be read."""
    return getattr(model, "longest", None) or LONGEST


def generate(
    model: Generator | Ensemble,
    params: Params,
    requests: Sequence[Request],
    *,
    eos: int,
    beam: int = 5,
    alpha: float = 0.6,
    word_penalty: float = 0.0,
    wanted: int = 1,
    rules: Rules | None = None,
    options: Options = NO_OPTIONS,
    seed: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[list[Result]]:
    """The `wanted` best results of every request, best first (fewer where fewer exist), in the order of `requests`.

    Without `rules` search is greedy if `beam` is 1, else a beam search by the default ones. With a `seed` there is no
    search: `beam` samples are drawn, by the options.
    `progress` is told how many sentences each finished batch held.
    """
    if not 1 <= wanted <= beam:
        raise SeqlabError(f"a beam of {beam} holds 1 to {beam} hypotheses a sentence, not {wanted}")
    most = most_tokens(model)
    for i, request in enumerate(requests):
        if max(len(request.source or ()), len(request.prompt)) > most:
            raise SeqlabError(f"request {i} has more than {most} tokens")
    params = jax.device_put(params)
    search = make_search(
        model, eos, beam, wanted, rules or (None if beam == 1 else DEFAULT), options, seed is not None
    )
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
                if scores[row, k] > NEVER
            ]
        progress(len(chosen))

    for chosen, shape in _batches(requests, beam, getattr(model, "longest", None)):
        batch = _collate([requests[i] for i in chosen], shape)
        waiting.append((chosen, search(params, *batch, alpha, word_penalty, seed or 0, length=shape[-1])))
        if len(waiting) > 1:  # one batch is always under way while the last one is read
            collect()
    while waiting:
        collect()
    return results


def round_up(n: int) -> int:
    """Lengths come in steps of about a third: 8 12 16 24 32 48 64 96 ..., so that there are few shapes."""
    size = 8
    while size < n:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def _batches(
    requests: Sequence[Request], beam: int, longest: int | None
) -> Iterator[tuple[list[int], tuple[int, int, int, int]]]:
    """Indices of requests of like length, and their shape: (rows, source length, prompt length, room for the answer).

    Where the model has a `longest` sequence, all lengths are held to it.
    """
    most = longest or 1 << 30
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (source, prompt, *_) in enumerate(requests):
        # A prompt of one token, BOS, stays one: nothing of it has to be read ahead of the first step.
        prompt_length = 1 if len(prompt) == 1 else min(1 + round_up(len(prompt) - 1), most)
        source_length = 0 if source is None else min(round_up(len(source)), most)
        groups.setdefault((source_length, prompt_length), []).append(i)
    for shape, members in sorted(groups.items()):
        room = min(round_up(max(requests[i].limit for i in members)), most - shape[1] + 1)
        fitting = [rows for rows in ROWS if rows * (shape[0] + beam * (shape[1] + room)) <= POSITIONS] or [1]
        for at in range(0, len(members), fitting[-1]):
            chosen = members[at : at + fitting[-1]]
            yield chosen, (next(rows for rows in ROWS if rows >= len(chosen)), *shape, room)


def padded_sources(requests: Sequence[Request], rows: int, length: int) -> Tokens | None:
    """Sources, left-aligned and filled up with empty rows; None if they have no length."""
    if not length:
        return None
    source = np.zeros((3, rows, length), np.int32)
    for row, request in enumerate(requests):
        size = len(request.source or ())
        source[:, row, :size] = request.source or (), np.ones(size), request.sentences or np.zeros(size)
    return Tokens(source[0], source[1] > 0, sentences=source[2])


def _collate(
    requests: list[Request], shape: tuple[int, int, int, int]
) -> tuple[Tokens | None, Tokens, np.ndarray, np.ndarray, np.ndarray]:
    """Padded arrays: sources left-aligned, prompts right-aligned, filled-up rows with a limit of 0."""
    rows, source_length, prompt_length, room = shape
    prompt = np.zeros((2, rows, prompt_length), np.int32)
    prompt[1, :, -1] = 1
    limit, least, numbers = np.zeros((3, rows), np.int32)
    for row, request in enumerate(requests):
        prompt[:, row, prompt_length - len(request.prompt) :] = request.prompt, np.ones(len(request.prompt))
        limit[row] = min(request.limit, room)
        least[row], numbers[row] = request.least, request.number
    inputs = padded_sources(requests, rows, source_length)
    return inputs, Tokens(prompt[0], prompt[1] > 0), limit, least, numbers
