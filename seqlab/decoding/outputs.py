"""The outputs of models that do not generate text: scores of classes, tags and numbers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqlab.codecs.codec import as_row
from seqlab.data.padding import pad_inputs
from seqlab.data.task import Prediction
from seqlab.decoding.trained import TrainedModel
from seqlab.layers.losses import model_outputs
from seqlab.types import Inputs, Params

ROWS = 64  # sequences in a batch


def outputs_of(
    trained: TrainedModel,
    rows: Sequence[Any],
    column: str = "source",
    to_inputs: Callable[[Sequence[Any], Any, int, int], Any] = pad_inputs,
    compute: Callable[[Any, Params, Inputs], jax.Array] = model_outputs,
) -> list[np.ndarray]:
    """Returns the outputs of a model for each row of a column: logits [C], or logits per position [T C], or a number.
    Rows are computed in batches of few shapes. `to_inputs`, like `pad_inputs`, makes the inputs of a batch.
    `compute`, a function of a model, its parameters and inputs, returns the outputs.
    """
    outputs, codec, results = make_outputs(trained.model, compute), trained.codecs[column], []
    for at in range(0, len(rows), ROWS):
        batch = [as_row(row, codec) for row in rows[at : at + ROWS]]
        length = room_for(batch, trained.model.longest)
        results += [*np.asarray(outputs(trained.params, to_inputs(batch, codec, length, ROWS)))[: len(batch)]]
    return results


def ranked_classes(logits: np.ndarray, names: tuple[str, ...]) -> list[Prediction]:
    """Returns all classes with their probabilities, most likely first, given logits [C]."""
    probabilities = np.exp(logits - np.logaddexp.reduce(logits)).tolist()
    return [Prediction(names[i], probabilities[i]) for i in np.argsort(-logits, kind="stable")]


def predict_tags(
    trained: TrainedModel, rows: Sequence[Any], places_of: Callable[[Any], Any]
) -> list[list[Prediction]]:
    """Returns the most likely labels of each row of the source, at the positions that `places_of` selects in it."""
    codec, predictions = trained.codecs["label"], []
    for row, logits in zip(rows, outputs_of(trained, rows), strict=True):
        tags = logits[places_of(row)].argmax(-1).tolist()
        predictions.append([Prediction(codec.decode(tags), details={"tags": [codec.names[i] for i in tags]})])
    return predictions


def room_for(rows: Sequence[np.ndarray], longest: int | None) -> int:
    """Returns the length of a batch: a power of two, so that there are few shapes, but at most the maximum of the
    model. Images are not padded.
    """
    length = max(map(len, rows))
    if rows[0].ndim > 2:
        return length
    rounded = 1 << max(length - 1, 1).bit_length()
    return rounded if longest is None else max(length, min(rounded, longest))


@functools.lru_cache(maxsize=16)
def make_outputs(model: Any, compute: Callable[..., jax.Array] = model_outputs) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(compute, model))
