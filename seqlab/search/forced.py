"""Forced passes: the log-probabilities of given target texts, and the attention of their tokens to the source."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqlab.config import MAX_POSITIONS
from seqlab.data.padding import pad
from seqlab.search.requests import Request, max_tokens, padded_sources, round_up, source_length, source_room
from seqlab.types import Generator, Inputs, Params, Tokens


@functools.lru_cache(maxsize=16)
def make_attention_weights(model: Any) -> Callable[..., Float[Array, "B T L H S"]]:
    """Returns the jitted pass from (params, inputs, prefix) to the weights of the attention to the source, by layer
    and head.
    """

    @jax.jit
    def attention_weights(params: Params, inputs: Tokens, prefix: Tokens) -> jax.Array:
        weights = model.apply(params, inputs, prefix, method=type(model).attention_weights)  # [L B H T S]
        return weights.transpose(1, 3, 0, 2, 4)

    return attention_weights


@functools.lru_cache(maxsize=16)
def make_most_attended(model: Any) -> Callable[..., tuple[Int[Array, "B T"], Float[Array, "B T"]]]:
    """Returns the jitted pass from (params, inputs, prefix) to the source position with the most attention, and its
    share.
    """

    @jax.jit
    def most_attended(params: Params, inputs: Tokens, prefix: Tokens) -> tuple[jax.Array, jax.Array]:
        weights = model.apply(params, inputs, prefix, method=type(model).attention_weights)[-1].mean(1)  # [B T S]
        return weights.argmax(-1), weights.max(-1)

    return most_attended


@functools.lru_cache(maxsize=16)
def make_token_log_probs(model: Any) -> Callable[..., Float[Array, "B T"]]:
    """Returns the jitted pass from (params, inputs, prefix, targets [B T]) to the targets'
    log-probabilities [B T].
    """

    @jax.jit
    def token_log_probs(params: Params, inputs: Inputs, prefix: Tokens, targets: Int[Array, "B T"]) -> jax.Array:
        logits = model.apply(params, inputs, prefix, train=False, method="outputs")
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    return token_log_probs


def token_log_probs(
    model: Generator, params: Params, requests: Sequence[Request], targets: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Returns the log-probability of each token of each target, in the order of the requests. A target follows the
    prompt of its request.
    """
    params = jax.device_put(params)
    run = make_token_log_probs(model)
    results = run_by_target(lambda *batch: (run(params, *batch),), requests, targets, max_tokens(model))
    return [log_probs for (log_probs,) in results]


def attention_weights(
    model: Generator, params: Params, requests: Sequence[Request], targets: Sequence[Sequence[int]]
) -> list[Float[np.ndarray, "T L H S"]]:
    """Returns the weights with which each token of each target attends to its source, in the order of the
    requests.
    """
    params = jax.device_put(params)
    run = make_attention_weights(model)
    results = run_by_target(
        lambda inputs, prefix, _: (run(params, inputs, prefix),), requests, targets, max_tokens(model)
    )
    return [weights[..., : source_length(request)] for request, (weights,) in zip(requests, results, strict=True)]


def most_attended(
    model: Generator, params: Params, requests: Sequence[Request], targets: Sequence[Sequence[int]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns, for each token of each target, the source position with the most attention and its share, in the order
    of the requests. The attention is the mean over the heads of the last layer.
    """
    params = jax.device_put(params)
    run = make_most_attended(model)
    return run_by_target(lambda inputs, prefix, _: run(params, inputs, prefix), requests, targets, max_tokens(model))


def run_by_target(
    run: Callable[..., Sequence[jax.Array]],
    requests: Sequence[Request],
    targets: Sequence[Sequence[int]],
    maximum: int,
) -> list[Any]:
    """Returns the outputs of a pass over (inputs, prefix, next tokens), arrays [B T], for the tokens of each target.
    Nothing is padded to more than `maximum` tokens.
    """
    results: list[Any] = [()] * len(requests)
    shapes: dict[tuple[int, int], list[int]] = {}
    for i, (request, target) in enumerate(zip(requests, targets, strict=True)):
        room = source_room(request, maximum)
        length = len(request.prompt) + len(target) - 1
        shapes.setdefault((room, max(length, round_up(length, maximum))), []).append(i)
    for (room, target_length), members in sorted(shapes.items()):
        rows = max(1, min(64, MAX_POSITIONS // (8 * (room + target_length))))
        for at in range(0, len(members), rows):
            indices = members[at : at + rows]
            shape = (rows, room, target_length)
            batch = pad_targets([requests[i] for i in indices], [targets[i] for i in indices], shape)
            for i, *outputs in zip(indices, *map(np.asarray, run(*batch)), strict=False):
                begin = len(requests[i].prompt) - 1
                results[i] = tuple(row[begin : begin + len(targets[i])] for row in outputs)
    return results


def pad_targets(
    requests: Sequence[Request], targets: Sequence[Sequence[int]], shape: tuple[int, int, int]
) -> tuple[Inputs, Tokens, np.ndarray]:
    """Returns inputs, prefixes, and the token after each prefix [B T], filled up with empty rows."""
    rows, room, target_length = shape
    texts = [[*request.prompt, *target] for request, target in zip(requests, targets, strict=True)]
    prefix = Tokens(*pad([text[:-1] for text in texts], target_length, rows))
    next_tokens, _ = pad([text[1:] for text in texts], target_length, rows)
    return padded_sources(requests, rows, room), prefix, next_tokens
