"""Arrays with an axis of tokens, such as embedding tables, and their rows for another tokenizer."""

from typing import Any, NamedTuple

import numpy as np

from seqlab.codecs.codec import Codecs, TextCodec
from seqlab.layers.nesting import modules_in, readers_of
from seqlab.runs.parameters import axes_of
from seqlab.system.errors import SeqlabError
from seqlab.types import Encoder, Reader


class PieceAxis(NamedTuple):
    """The axis of an array whose entries are the pieces of a text codec."""

    axis: int
    codec: TextCodec


def piece_axes(model: Any, codecs: Codecs, sizes: dict[str, tuple[int, ...]]) -> dict[str, PieceAxis]:
    """Returns the axes of pieces by path below "params", for the parameters of a model with these `sizes`.

    An axis is one of pieces if its layer declares it as "vocabulary" and it has as many entries as a text codec. The
    table of token types, for example, has fewer. Raises `SeqlabError` if the codec cannot be determined.
    """
    counts = {len(codec.names) for codec in codecs.values() if isinstance(codec, TextCodec)}
    piece_axes = {}
    for path, axes in axes_of(model).items():
        if path in sizes and "vocabulary" in axes.names:
            axis = axes.names.index("vocabulary")
            codec = codec_of(path, model, codecs) if sizes[path][axis] in counts else None
            if codec is not None and len(codec.names) == sizes[path][axis]:
                piece_axes[path] = PieceAxis(axis, codec)
    return piece_axes


def codec_of(path: str, model: Any, codecs: Codecs) -> TextCodec | None:
    """Returns the text codec whose pieces number the entries of a parameter, or None if its codec is not of text.

    It is the codec of the column of the reader that the parameter belongs to, or of the reader of its encoder;
    otherwise that of the column "target", or of the only text column. Raises `SeqlabError` if none of these is
    unique.
    """
    columns = columns_of(path, model) or (["target"] if "target" in codecs else list(codecs))
    text = {codecs[name].digest: codecs[name] for name in columns if isinstance(codecs.get(name), TextCodec)}
    if len(text) > 1:
        raise SeqlabError(
            f"initialize: {path} may belong to the tokenizer of any of the columns {', '.join(columns)}, which have "
            "different tokenizers: initialize smaller parts, without it"
        )
    return next(iter(text.values()), None)


def columns_of(path: str, model: Any) -> list[str]:
    """Returns the columns of the reader that a parameter belongs to, or of the readers of the innermost encoder that
    contains it; an empty list if there is none.
    """
    columns: list[str] = []
    for place, module in modules_in(model):  # from the outermost to the innermost
        if isinstance(module, Encoder | Reader) and path.startswith(f"{place.replace('.', '/')}/"):
            columns = sorted({reader.column for reader in readers_of(module).values()})
    return columns


def copy_matching(initial: Any, axis: PieceAxis, stored: Any, stored_axis: PieceAxis) -> tuple[np.ndarray, int]:
    """Returns a copy of `initial` whose entries of pieces that both codecs have come from `stored`, and the number of
    these pieces.

    needed  a b c      stored  b d a      copied: a from 2, b from 0
    """
    places = {piece: i for i, piece in reversed([*enumerate(stored_axis.codec.names)])}
    pairs = [(i, places[piece]) for i, piece in enumerate(axis.codec.names) if piece in places]
    rows, sources = np.array(pairs, int).reshape(-1, 2).T
    matched = np.moveaxis(np.array(initial), axis.axis, 0).copy()
    matched[rows] = np.moveaxis(np.asarray(stored), stored_axis.axis, 0)[sources]
    return np.moveaxis(matched, 0, axis.axis), len(pairs)
