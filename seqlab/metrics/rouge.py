"""ROUGE-1, 2, L and Lsum (Lin 2004), computed by rouge-score, and a tokenizer for words in any script."""

import functools
import importlib.metadata
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from seqlab.metrics.metric import LineCounts, Metric, TextLines, count_means

ROUGE_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
NAMES = {"ascii": list(ROUGE_NAMES.values()), "unicode": [f"{name} (unicode)" for name in ROUGE_NAMES.values()]}
# Prefixes of the character names of scripts without blanks between words: each character counts as a word.
UNSPACED = ("CJK ", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def rouge_by_line(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], stem: bool, tokenizer: str
) -> Float[np.ndarray, "lines 4"]:
    """Returns the F1 of each line, times 100, for the best of its references. Lsum treats newlines as sentence
    boundaries. `tokenizer` is "ascii", the tokenizer of rouge-score, or "unicode".
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(
        list(ROUGE_NAMES), use_stemmer=stem, tokenizer=None if tokenizer == "ascii" else UnicodeTokenizer()
    )
    lines = [scorer.score_multi(refs, line) for line, *refs in zip(hypotheses, *references, strict=True)]
    return 100 * np.array([[line[kind].fmeasure for kind in ROUGE_NAMES] for line in lines])


class UnicodeTokenizer:
    """Splits text into lowercased `words`, with the interface of rouge-score's tokenizers."""

    def tokenize(self, text: str) -> list[str]:
        return [word.lower() for word in words(text)]


def words(text: str) -> list[str]:
    """Returns the words of a text: maximal runs of letters, their marks, and digits. In scripts without blanks
    between words, each character is a word. For ASCII text these are the words of rouge-score.
    """
    result: list[str] = []
    joined = False  # whether a letter continues the last word
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
    """Returns the first letter of the general category, and whether the script has no blanks between words."""
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
        "ROUGE-1, 2, L and Lsum (Lin 2004) for English: the mean F1 over lines, times 100, computed by rouge-score.",
        count_rouge,
    ),
    "rouge_stemmed": Metric("ROUGE with Porter stemming.", functools.partial(count_rouge, stem=True)),
    "rouge_unicode": Metric(
        "ROUGE with words in any script; comparable only with the same tokenization.",
        functools.partial(count_rouge, tokenizer="unicode"),
    ),
}
