"""Embeddings of lines of text: the summaries of an encoder."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from seqlab.codecs.codec import encode_values
from seqlab.data.text_files import read_lines
from seqlab.decoding.outputs import outputs_of
from seqlab.decoding.predictions import InputExample, refused_example
from seqlab.decoding.trained import TrainedModel
from seqlab.decoding.windows import WINDOW, windows_of
from seqlab.layers.head import encode_inputs
from seqlab.layers.nesting import field_names, readers_of
from seqlab.system.errors import SeqlabError
from seqlab.system.files import replaced_file
from seqlab.system.progress_bar import progress
from seqlab.types import Encoder, Inputs, Params


def embed_file(trained: TrainedModel, source: Path, output: Path) -> tuple[int, int]:
    """Writes the summary of each line of a file to an array in NumPy's format, float32 [lines D], and returns its
    shape. Memory is bounded by a window of lines. The output is replaced atomically.

    Raises `SeqlabError` for a model without an encoder, for an empty file, and for a line that the model cannot read.
    """
    column = column_of(trained.model)
    count, width, written = sum(1 for _ in read_lines(source)), 0, 0
    if not count:
        raise SeqlabError(f"{source} is empty: there is no line to embed")
    with replaced_file(output) as part, part.open("wb") as stream, progress("embedding", count) as advance:
        for vectors in embeddings_of(trained, column, read_lines(source), str(source)):
            if not written:
                width = vectors.shape[1]
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(vectors.astype("<f4").tobytes())
            written += len(vectors)
            advance(len(vectors))
        if written != count:
            raise SeqlabError(f"{source} had {count:,} lines and now has {written:,}: embed it again")
    return count, width


def column_of(model: Any) -> str:
    """Returns the column that the encoder of a model reads. Raises `SeqlabError` for a model without an encoder, or
    with an encoder of several columns.
    """
    name = type(model).__name__
    if "encoder" not in field_names(model) or not isinstance(model.encoder, Encoder):
        raise SeqlabError(f"{name} has no encoder as a field: embed with a run of a head on an encoder")
    columns = sorted({reader.column for reader in readers_of(model.encoder).values()})
    if len(columns) != 1:
        raise SeqlabError(f"the encoder of {name} reads the columns {', '.join(columns)}, but lines have only one")
    return columns[0]


def embeddings_of(
    trained: TrainedModel, column: str, lines: Iterable[str], place: str
) -> Iterator[Float[np.ndarray, "N D"]]:
    """Yields the summaries of windows of lines. `place` is the name of their file in errors."""
    number = 0
    for window in windows_of(lines, None, WINDOW):
        rows = rows_of(trained, column, window, place, number + 1)
        yield np.stack(outputs_of(trained, rows, column, compute=summaries))
        number += len(window)


def rows_of(trained: TrainedModel, column: str, lines: Sequence[str], place: str, first: int) -> list[Any]:
    """Returns the rows of lines, which are counted from `first`. Raises `SeqlabError` for a line that the codec
    refuses, or that is longer than the model reads.
    """
    separator, codec, longest = trained.task.separator, trained.codecs[column], trained.model.longest
    texts = [line.replace(separator, "\n") for line in lines] if separator else [*lines]
    try:
        rows = encode_values(texts, codec)
    except SeqlabError as error:
        examples = [InputExample(f"{place}:{number}", {column: text}) for number, text in enumerate(texts, first)]
        raise refused_example(trained, examples) or error from None
    for number, row in enumerate(rows, first):
        if longest is not None and len(row) > longest:
            raise SeqlabError(
                f"{place}:{number}: {len(row):,} tokens, but the model reads at most {longest:,}: shorten the line"
            )
    return rows


def summaries(model: Any, params: Params, inputs: Inputs) -> Float[Array, "B D"]:
    """Returns the summaries of the encoder of a model, without dropout."""

    def summarize(module: Any, inputs: Inputs) -> Float[Array, "B D"]:
        return encode_inputs(module.encoder, inputs, train=False).summary

    vectors: jax.Array = model.apply(params, inputs, method=summarize)  # pyright: ignore[reportAssignmentType]
    return vectors.astype("float32")
