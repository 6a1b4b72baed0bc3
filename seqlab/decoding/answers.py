"""The answers of models that write no text: classes, tags and numbers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqlab.codecs.codec import Codec
from seqlab.data.padding import pad_inputs
from seqlab.layers.losses import model_outputs
from seqlab.types import Params

ROWS = 64  # sequences in a batch


def answers(
    model: Any,
    params: Params,
    sequences: Sequence[Any],
    codec: Codec,
) -> list[Any]:
    """The likeliest class, or classes, or the number, for each of many rows of a codec, in batches of few shapes."""
    answer, results = make_answer(model), []
    for at in range(0, len(sequences), ROWS):
        batch = sequences[at : at + ROWS]
        length = 1 << max(max(map(len, batch)) - 1, 1).bit_length()
        results += [*np.asarray(answer(params, pad_inputs(batch, codec, length, ROWS)))[: len(batch)]]
    return results


@functools.lru_cache(maxsize=16)
def make_answer(model: Any) -> Callable[..., jax.Array]:
    def answer(params: Params, inputs: Any) -> jax.Array:
        outputs = model_outputs(model, params, inputs)
        return outputs if outputs.ndim == 1 else outputs.argmax(-1)  # a number, or logits

    return jax.jit(answer)
