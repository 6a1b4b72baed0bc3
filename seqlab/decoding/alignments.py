"""Alignments of decoded texts with their sources, by the model's attention."""

from collections.abc import Sequence

from seqlab.codecs.codec import BLANK, END
from seqlab.decoding.decoded_text import Alignment, DecodedText
from seqlab.decoding.trained import TrainedModel
from seqlab.search.forced import most_attended
from seqlab.search.requests import Request
from seqlab.system.errors import SeqlabError
from seqlab.types import Attentive


def with_alignments(
    trained: TrainedModel, requests: Sequence[Request], texts: list[list[DecodedText]]
) -> list[list[DecodedText]]:
    """Returns texts with their alignments, by a forced pass. Raises `SeqlabError` for a model without attention to a
    source.
    """
    if not isinstance(trained.model, Attentive):
        raise SeqlabError("alignments need a single model with attention to the source: leave out --alignments")
    repeated = [request for request, best in zip(requests, texts, strict=True) for _ in best]
    ids = [text.ids for best in texts for text in best]
    positions = iter(most_attended(trained.model, trained.params, repeated, ids))
    source, target = (trained.codecs[column].names.__getitem__ for column in ("source", "target"))

    def aligned(request: Request, text: DecodedText) -> DecodedText:
        best, shares = next(positions)
        pieces = [*map(source, () if request.source is None else request.source)], [*map(target, text.ids)]
        return text._replace(alignment=Alignment(*pieces, best.tolist(), shares.tolist()))

    return [[aligned(request, text) for text in best] for request, best in zip(requests, texts, strict=True)]


def word_links(alignment: Alignment) -> list[tuple[int, int]]:
    """Returns the pairs of source word and text word, from 0, in which a token of the text word attends most to a
    token of the source word.
    """
    source, target = words_of(alignment.source), words_of(alignment.target)
    links = {(source[i], target[j]) for j, i in enumerate(alignment.best)}
    return sorted((i, j) for i, j in links if i >= 0 and j >= 0)


def words_of(pieces: Sequence[str]) -> list[int]:
    """Returns the word of each token, from 0. EOS at the end and a single blank belong to no word (-1)."""
    words, word, begins = [], -1, True
    ended = list(pieces[-1:]) == [END]
    for piece in pieces[: len(pieces) - ended]:
        begins |= piece.startswith(BLANK)
        if piece.strip(BLANK):
            word, begins = word + begins, False
        words.append(word if piece.strip(BLANK) else -1)
    return [*words, -1] if ended else words
