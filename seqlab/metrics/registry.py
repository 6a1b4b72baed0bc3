"""Scores of plain text: thin over sacrebleu and rouge-score, and shares of lines that are right.

A metric counts something in each line (n-grams that match, edits, hits), and its scores hinge on the sum of these
counts alone. So a corpus, a line of it, and a corpus drawn anew from its lines are scored by one function.
"""

import functools
from collections.abc import Sequence

import numpy as np

from seqlab.metrics.accuracy import _accuracy
from seqlab.metrics.bleu import _bleu
from seqlab.metrics.chrf import _chrf
from seqlab.metrics.exact_match import _exact_match
from seqlab.metrics.macro_f1 import _macro_f1
from seqlab.metrics.mean_squared_error import _mse
from seqlab.metrics.metric import Counted, Lines, Metric, Score, _sacrebleu, check_lines
from seqlab.metrics.rouge import _rouge
from seqlab.metrics.ter import _ter
from seqlab.system.errors import SeqlabError


def metric(name: str) -> Metric:
    if name not in METRICS:
        raise SeqlabError(f"unknown metric {name!r}: one of {', '.join(METRICS)}")
    return METRICS[name]


def count(name: str, hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    """What a metric counts in hypotheses against one or more lists of references, line by line."""
    found = metric(name)
    check_lines(hypotheses, references)
    return found.counted(hypotheses, references)


def score(name: str, hypotheses: Lines, references: Sequence[Lines]) -> list[Score]:
    """Scores of hypotheses against one or more lists of references."""
    return count(name, hypotheses, references).scores()


def score_lines(name: str, hypotheses: Lines, references: Sequence[Lines]) -> dict[str, np.ndarray]:
    """The scores [lines] of each line alone, by name. BLEU of a line counts the orders of n-grams that the line is
    long enough for (sacrebleu's effective order), and the mean over lines is another figure than the BLEU of a
    corpus.
    """
    found = metric(name)
    check_lines(hypotheses, references)
    counted = (found.counted_alone or found.counted)(hypotheses, references)
    rows = [counted.values(row) for row in counted.counts]
    return {label: np.array([row[label] for row in rows]) for label in rows[0]}


METRICS: dict[str, Metric] = {
    "bleu": _bleu("Corpus BLEU (Papineni et al. 2002) by sacrebleu: 13a tokenization, cased."),
    "bleu_zh": _bleu("The same with Chinese tokenization: each ideograph is a word.", tokenize="zh"),
    "tokenized_bleu": _bleu(
        "Corpus BLEU by sacrebleu of text that is tokenized already; compare only with the same tokenization.",
        "tokenized {}",
        tokenize="none",
    ),
    "tokenized_lc_bleu": _bleu(
        "The same, lower-cased: what papers before 2018 often call BLEU, and no other figure's peer.",
        "tokenized lower-cased {}",
        tokenize="none",
        lowercase=True,
    ),
    "chrf": Metric("chrF2 (Popović 2015) by sacrebleu.", _sacrebleu(_chrf)),
    "chrf++": Metric("chrF2++ (Popović 2017) by sacrebleu: words count too.", _sacrebleu(_chrf, word_order=2)),
    "ter": Metric("Translation edit rate (Snover et al. 2006) by sacrebleu: lower is better.", _sacrebleu(_ter)),
    "rouge": Metric(
        "ROUGE-1, 2, L and Lsum (Lin 2004): the mean over lines of rouge-score's F1, times 100, of English text.",
        _rouge,
    ),
    "rouge_stemmed": Metric("The same after Porter's stemmer.", functools.partial(_rouge, stem=True)),
    "rouge_unicode": Metric(
        "The same with words of any script; compare with no other tokenization.",
        functools.partial(_rouge, tokenizer="unicode"),
    ),
    "exact_match": Metric(
        "The share of lines, in percent, that equal one of their references but for blanks at the ends.", _exact_match
    ),
    "accuracy": Metric("The share of lines, in percent, whose class is the right one.", _accuracy),
    "macro_f1": Metric("The mean over the references' classes of F1, in percent.", _macro_f1),
    "mse": Metric("Mean squared error of lines that are numbers, against one reference: lower is better.", _mse),
}

LOWER_IS_BETTER = ("TER", "mean squared error")  # of scores
