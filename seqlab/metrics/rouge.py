"""ROUGE-1, 2, L and Lsum (Lin 2004) of each line, by rouge-score; and words of any script."""

import functools
import importlib.metadata
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from seqlab.metrics.metric import Counted, Lines, _means

KINDS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
NAMES = {"ascii": list(KINDS.values()), "unicode": [f"{name} (unicode)" for name in KINDS.values()]}
# Scripts written without blanks, by how the names of their characters begin: each character is a word.
UNSPACED = ("CJK ", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def rouge_by_line(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], stem: bool, tokenizer: str
) -> Float[np.ndarray, "lines 4"]:
    """F1 of each line, times 100; of several references the best one counts. Lsum takes the newlines in a text as the
    ends of its sentences. The tokenizer is rouge-score's, "ascii", or "unicode".
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(KINDS), use_stemmer=stem, tokenizer=None if tokenizer == "ascii" else Unicode())
    lines = [scorer.score_multi(refs, line) for line, *refs in zip(hypotheses, *references, strict=True)]
    return 100 * np.array([[line[kind].fmeasure for kind in KINDS] for line in lines])


class Unicode:
    """As rouge-score asks for a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return [word.lower() for word in words(text)]


def words(text: str) -> list[str]:
    """Runs of letters, with their marks, and digits; what is neither stands between words. Where a script has no
    blanks, each character is a word. Of ASCII text these are the words of rouge-score.
    """
    found: list[str] = []
    joined = False  # whether a letter would go on with the last word
    for character in unicodedata.normalize("NFKC", text):
        kind, apart = _kind(character)
        if found and joined and kind == "M":
            found[-1] += character
        elif kind in "LMN" and (apart or not joined or _kind(found[-1][0])[1]):
            found.append(character)
        elif kind in "LMN":
            found[-1] += character
        joined = kind in "LMN"
    return found


@functools.cache
def _kind(character: str) -> tuple[str, bool]:
    """The general category's first letter, and whether a word of the script is not to be seen."""
    return unicodedata.category(character)[0], unicodedata.name(character, "").startswith(UNSPACED)


def _rouge(hypotheses: Lines, references: Sequence[Lines], stem: bool = False, tokenizer: str = "ascii") -> Counted:
    version = importlib.metadata.version("rouge-score")
    signature = (
        f"nrefs:{len(references)}|f1:mean|stemming:{'porter' if stem else 'no'}|tok:{tokenizer}|"
        f"sentences:newline|rouge-score:{version}"
    )
    return _means(rouge_by_line(hypotheses, references, stem, tokenizer), NAMES[tokenizer], signature)
