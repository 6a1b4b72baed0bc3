"""The answers of models that write no text: classes, tags and numbers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqlab.layers.losses import model_outputs
from seqlab.types import Params, Series, Tokens

ROWS = 64  # sequences in a batch


def answers(
    model: Any,
    params: Params,
    sequences: Sequence[np.ndarray],
    collate: Callable[[Sequence[np.ndarray], int, int], Tokens | Series],
) -> list[Any]:
    """The likeliest class, or classes, or the number, for each of many sequences, in batches of few shapes;
    `collate(sequences, length, rows)` pads them.
    """
    answer, results = make_answer(model), []
    for at in range(0, len(sequences), ROWS):
        batch = sequences[at : at + ROWS]
        length = 1 << max(max(map(len, batch)) - 1, 1).bit_length()
        results += [*np.asarray(answer(params, collate(batch, length, ROWS)))[: len(batch)]]
    return results


@functools.lru_cache(maxsize=16)
def make_answer(model: Any) -> Callable[..., jax.Array]:
    def answer(params: Params, inputs: Any) -> jax.Array:
        outputs = model_outputs(model, params, inputs)
        return outputs if outputs.ndim == 1 else outputs.argmax(-1)  # a number, or logits

    return jax.jit(answer)
