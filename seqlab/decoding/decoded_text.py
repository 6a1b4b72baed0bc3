"""A decoded text, and its alignment with its source."""

from collections.abc import Sequence
from typing import NamedTuple


class Alignment(NamedTuple):
    """The source token that each token of a text attends to most (`best`, indices from 0), and its share of the
    attention. `source` and `target` are the tokens as the tokenizer writes them, with EOS last if there is one.
    """

    source: list[str]
    target: list[str]
    best: list[int]
    shares: list[float]


class DecodedText(NamedTuple):
    """A text, its score normalized by length, its log-probability, its token ids with EOS, and its alignment.

    With minimum Bayes risk, the score is the mean similarity of the text to all samples, in percent.
    """

    text: str
    score: float
    log_prob: float
    ids: Sequence[int] = ()
    alignment: Alignment | None = None
