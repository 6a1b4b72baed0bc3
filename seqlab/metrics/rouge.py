"""ROUGE-1, 2, L and Lsum (Lin 2004), by rouge-score, and a tokenizer for words of any script."""

import functools
import importlib.metadata
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from seqlab.metrics.metric import LineCounts, Metric, TextLines, count_means

ROUGE_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
NAMES = {"ascii": list(ROUGE_NAMES.values()), "unicode": [f"{name} (unicode)" for name in ROUGE_NAMES.values()]}
# Scripts written without blanks, by how the names of their characters begin: each character is a word.
UNSPACED = ("CJK ", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def rouge_by_line(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], stem: bool, tokenizer: str
) -> Float[np.ndarray, "lines 4"]:
    """Returns the F1 of each line, times 100; the best of several references counts. Lsum takes the newlines in a
    text as the ends of its sentences. The tokenizer is rouge-score's, "ascii", or "unicode".
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(
        list(ROUGE_NAMES), use_stemmer=stem, tokenizer=None if tokenizer == "ascii" else UnicodeTokenizer()
    )
    lines = [scorer.score_multi(refs, line) for line, *refs in zip(hypotheses, *references, strict=True)]
    return 100 * np.array([[line[kind].fmeasure for kind in ROUGE_NAMES] for line in lines])


class UnicodeTokenizer:
    """The words of `words`, lower-cased, with the interface of rouge-score's codecs."""

    def tokenize(self, text: str) -> list[str]:
        return [word.lower() for word in words(text)]


def words(text: str) -> list[str]:
    """Returns the runs of letters, with their marks, and digits; anything else separates words. In a script that is
    written without blanks, each character is a word. Of ASCII text these are the words of rouge-score.
    """
    result: list[str] = []
    joined = False  # whether a letter would continue the last word
    for character in unicodedata.normalize("NFKC", text):
        kind, apart = character_kind(character)
        if result and joined and kind == "M":
            result[-1] += character
        elif kind in "LMN" and (apart or not joined or character_kind(result[-1][0])[1]):
            result.append(character)
        elif kind in "LMN":
            result[-1] += character
        joined = kind in "LMN"
    return result


@functools.cache
def character_kind(character: str) -> tuple[str, bool]:
    """Returns the general category's first letter, and whether the script is written without blanks."""
    return unicodedata.category(character)[0], unicodedata.name(character, "").startswith(UNSPACED)


def count_rouge(
    hypotheses: TextLines, references: Sequence[TextLines], stem: bool = False, tokenizer: str = "ascii"
) -> LineCounts:
    version = importlib.metadata.version("rouge-score")
    has_sentences = any("\n" in text for texts in (hypotheses, *references) for text in texts)
    signature = (
        f"nrefs:{len(references)}|f1:mean|stemming:{'porter' if stem else 'no'}|tok:{tokenizer}|"
        f"sentences:{'newline' if has_sentences else 'one'}|rouge-score:{version}"
    )
    return count_means(rouge_by_line(hypotheses, references, stem, tokenizer), NAMES[tokenizer], signature)


METRICS: dict[str, Metric] = {
    "rouge": Metric(
        "ROUGE-1, 2, L and Lsum (Lin 2004): the mean over lines of rouge-score's F1, times 100, of English text.",
        count_rouge,
    ),
    "rouge_stemmed": Metric("The same after Porter's stemmer.", functools.partial(count_rouge, stem=True)),
    "rouge_unicode": Metric(
        "The same with words of any script; compare with no other tokenization.",
        functools.partial(count_rouge, tokenizer="unicode"),
    ),
}
