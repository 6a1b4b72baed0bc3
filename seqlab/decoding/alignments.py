"""TODO decoding.alignments."""

from collections.abc import Sequence
from typing import Any

from seqlab.data.tokenizers import BLANK, END, Tokenizers
from seqlab.decoding.decoded_text import Alignment, DecodedText
from seqlab.search.forced import looked_at
from seqlab.search.requests import Request
from seqlab.system.errors import SeqlabError
from seqlab.types import Params


def with_alignments(
    model: Any, params: Params, tokenizers: Tokenizers, requests: Sequence[Request], texts: list[list[DecodedText]]
) -> list[list[DecodedText]]:
    """Texts with their alignments, by a forced pass. Raises for a model that attends to no source."""
    if not hasattr(model, "attention_weights"):
        raise SeqlabError("alignments are of one model that attends to a source")
    asked = [request for request, some in zip(requests, texts, strict=True) for _ in some]
    looked = iter(looked_at(model, params, asked, [one.ids for some in texts for one in some]))
    read, wrote = tokenizers["source"].piece, tokenizers["target"].piece

    def aligned(request: Request, one: DecodedText) -> DecodedText:
        best, shares = next(looked)
        names = [*map(read, request.source or ())], [*map(wrote, one.ids)]
        return one._replace(alignment=Alignment(*names, best.tolist(), shares.tolist()))

    return [[aligned(request, one) for one in some] for request, some in zip(requests, texts, strict=True)]


def word_links(alignment: Alignment) -> list[tuple[int, int]]:
    """Pairs of words of source and text, from 0 on, where a token of the text looked at one of the source."""
    source, target = words_of(alignment.source), words_of(alignment.target)
    links = {(source[i], target[j]) for j, i in enumerate(alignment.best)}
    return sorted((i, j) for i, j in links if i >= 0 and j >= 0)


def words_of(pieces: Sequence[str]) -> list[int]:
    """Which word each token is of; EOS at the end is of none (-1), as is a blank that stands alone."""
    found, word, begins = [], -1, True
    ended = list(pieces[-1:]) == [END]
    for piece in pieces[: len(pieces) - ended]:
        begins |= piece.startswith(BLANK)
        if piece.strip(BLANK):
            word, begins = word + begins, False
        found.append(word if piece.strip(BLANK) else -1)
    return [*found, -1] if ended else found
