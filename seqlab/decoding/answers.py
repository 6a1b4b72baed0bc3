"""TODO decoding.answers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqlab.layers.losses import outputs
from seqlab.types import Params, Series, Tokens

ANSWERED = 64  # sequences answered at once


def answers(
    model: Any,
    params: Params,
    sequences: Sequence[np.ndarray],
    collate: Callable[[Sequence[np.ndarray], int, int], Tokens | Series],
) -> list[Any]:
    """The likeliest class, or classes, or the number, for each of many sequences, in batches of few shapes;
    `collate(sequences, length, rows)` pads them.
    """
    run, found = make_answer(model), []
    for at in range(0, len(sequences), ANSWERED):
        some = sequences[at : at + ANSWERED]
        length = 1 << max(max(map(len, some)) - 1, 1).bit_length()
        found += [*np.asarray(run(params, collate(some, length, ANSWERED)))[: len(some)]]
    return found


@functools.lru_cache(maxsize=16)
def make_answer(model: Any) -> Callable[..., jax.Array]:
    def answer(params: Params, inputs: Any) -> jax.Array:
        found = outputs(model, params, inputs)
        return found if found.ndim == 1 else found.argmax(-1)  # a number, or logits

    return jax.jit(answer)
