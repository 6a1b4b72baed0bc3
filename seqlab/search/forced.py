"""Forced passes: the log-probabilities that a model gives to answers that are there already, and what it looks at."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqlab.search.requests import POSITIONS, Request, most_tokens, padded_sources, round_up
from seqlab.types import Generator, Params, Tokens


@functools.lru_cache(maxsize=16)
def make_attention(model: Any) -> Callable[..., Float[Array, "B T L H S"]]:
    """The jitted pass: (params, inputs, prefix) to the weights of the attention to the source, by layer and head."""

    @jax.jit
    def attention(params: Params, inputs: Tokens, prefix: Tokens) -> jax.Array:
        weights = model.apply(params, inputs, prefix, method=type(model).attention_weights)  # [L B H T S]
        return weights.transpose(1, 3, 0, 2, 4)

    return attention


@functools.lru_cache(maxsize=16)
def make_looked_at(model: Any) -> Callable[..., tuple[Int[Array, "B T"], Float[Array, "B T"]]]:
    """The jitted pass: (params, inputs, prefix) to where each position looks most, and its share of the attention."""

    @jax.jit
    def looked(params: Params, inputs: Tokens, prefix: Tokens) -> tuple[jax.Array, jax.Array]:
        weights = model.apply(params, inputs, prefix, method=type(model).attention_weights)[-1].mean(1)  # [B T S]
        return weights.argmax(-1), weights.max(-1)

    return looked


@functools.lru_cache(maxsize=16)
def make_force(model: Any) -> Callable[..., Float[Array, "B T"]]:
    """The jitted pass: (params, inputs, prefix, targets [B T]) to the targets' log-probabilities [B T]."""

    @jax.jit
    def force(params: Params, inputs: Tokens | None, prefix: Tokens, targets: Int[Array, "B T"]) -> jax.Array:
        def run(module: Any) -> jax.Array:
            return module.project(module.features(inputs, prefix, train=False)[0])

        logits = model.apply(params, method=run)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    return force


def force(
    model: Generator, params: Params, requests: Sequence[Request], answers: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """The log-probability of each token of each answer, which follows its request's prompt, in the order asked."""
    params = jax.device_put(params)
    run = make_force(model)
    found = _by_answer(lambda *batch: (run(params, *batch),), requests, answers, most_tokens(model))
    return [values for (values,) in found]


def attention(
    model: Generator, params: Params, requests: Sequence[Request], answers: Sequence[Sequence[int]]
) -> list[Float[np.ndarray, "T L H S"]]:
    """The weights with which each token of each answer attends to its source; in the order asked."""
    params = jax.device_put(params)
    run = make_attention(model)
    most = most_tokens(model)
    found = _by_answer(lambda inputs, prefix, _: (run(params, inputs, prefix),), requests, answers, most)
    return [weights[..., : len(request.source or ())] for request, (weights,) in zip(requests, found, strict=True)]


def looked_at(
    model: Generator, params: Params, requests: Sequence[Request], answers: Sequence[Sequence[int]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where in its source each token of each answer looks most, by the last layer's attention, the mean of its heads,
    and the share of the attention there; in the order asked.
    """
    params = jax.device_put(params)
    run = make_looked_at(model)
    most = most_tokens(model)
    return _by_answer(lambda inputs, prefix, _: run(params, inputs, prefix), requests, answers, most)


def _by_answer(
    run: Callable[..., Sequence[jax.Array]],
    requests: Sequence[Request],
    answers: Sequence[Sequence[int]],
    most: int,
) -> list[Any]:
    """What a pass over (inputs, prefix, targets) gives, arrays [B T], for the tokens of each answer; nothing is
    padded to more than `most` tokens.
    """
    found: list[Any] = [()] * len(requests)
    shapes: dict[tuple[int, int], list[int]] = {}
    for i, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        source = 0 if request.source is None else round_up(len(request.source), most)
        target = len(request.prompt) + len(answer) - 1
        shapes.setdefault((source, max(target, round_up(target, most))), []).append(i)
    for (source, target), members in sorted(shapes.items()):
        rows = max(1, min(64, POSITIONS // (8 * (source + target))))
        for at in range(0, len(members), rows):
            some = members[at : at + rows]
            batch = padded([requests[i] for i in some], [answers[i] for i in some], (rows, source, target))
            for i, *values in zip(some, *map(np.asarray, run(*batch)), strict=False):
                begin = len(requests[i].prompt) - 1
                found[i] = tuple(row[begin : begin + len(answers[i])] for row in values)
    return found


def padded(
    requests: Sequence[Request], answers: Sequence[Sequence[int]], shape: tuple[int, int, int]
) -> tuple[Tokens | None, Tokens, np.ndarray]:
    """Inputs, prefix and targets [B T], where a target is the token behind a prefix; filled up with empty rows."""
    rows, source_length, target_length = shape
    prefix = np.zeros((2, rows, target_length), np.int32)
    targets = np.zeros((rows, target_length), np.int32)
    for row, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        whole = [*request.prompt, *answer]
        prefix[0, row, : len(whole) - 1], targets[row, : len(whole) - 1] = whole[:-1], whole[1:]
        prefix[1, row, : len(whole) - 1] = 1
    inputs = padded_sources(requests, rows, source_length)
    return inputs, Tokens(prefix[0], prefix[1] > 0), targets
