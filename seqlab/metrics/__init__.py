"""Scores of plain text: thin over sacrebleu and rouge-score, and exact match."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from seqlab.errors import SeqlabError


class Score(NamedTuple):
    """`signature` says all that the value hinges on; cite both."""

    name: str
    value: float
    signature: str


Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], list[Score]]


def check_lines(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises for no lines, no references, or files of unequal length."""
    if not references:
        raise SeqlabError("no references to score against")
    if not hypotheses:
        raise SeqlabError("no hypotheses to score")
    for i, lines in enumerate(references, 1):
        if len(lines) != len(hypotheses):
            raise SeqlabError(f"{len(hypotheses)} hypotheses, but {len(lines)} lines in reference {i}")


def score(metric: str, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """Scores of hypotheses against one or more lists of references, line by line."""
    if metric not in METRICS:
        raise SeqlabError(f"unknown metric {metric!r}: one of {', '.join(METRICS)}")
    check_lines(hypotheses, references)
    return METRICS[metric](hypotheses, references)


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """Corpus BLEU (Papineni et al. 2002) by sacrebleu: 13a tokenization, cased."""
    from sacrebleu.metrics.bleu import BLEU

    # The warning it silences, about text that looks tokenized, would go to the log and not to the caller.
    return [_sacrebleu(BLEU(force=True), hypotheses, references)]


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """chrF2 (Popović 2015) by sacrebleu."""
    from sacrebleu.metrics.chrf import CHRF

    return [_sacrebleu(CHRF(), hypotheses, references)]


def ter(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """Translation edit rate (Snover et al. 2006) by sacrebleu: lower is better."""
    from sacrebleu.metrics.ter import TER

    return [_sacrebleu(TER(), hypotheses, references)]


def _sacrebleu(metric, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
    result = metric.corpus_score(list(hypotheses), [list(lines) for lines in references])
    return Score(result.name, result.score, str(metric.get_signature()))


def rouge(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """ROUGE-1, 2, L and Lsum (Lin 2004): the mean over lines of rouge-score's F1, times 100.

    With several references the best one of each line counts. No stemming; Lsum takes the newlines in a
    text as the ends of its sentences.
    """
    from importlib.metadata import version

    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    scorer = RougeScorer(list(names), use_stemmer=False)
    totals = dict.fromkeys(names, 0.0)
    for hypothesis, *lines in zip(hypotheses, *references, strict=True):
        for name, result in scorer.score_multi(lines, hypothesis).items():
            totals[name] += result.fmeasure
    count = f"nrefs:{len(references)}"
    signature = f"{count}|f1:mean|stemming:no|tok:ascii|rouge-score:{version('rouge-score')}"
    labels = ("ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum")
    return [
        Score(label, 100 * totals[name] / len(hypotheses), signature)
        for label, name in zip(labels, names, strict=True)
    ]


def exact_match(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """The share of lines, in percent, that equal one of their references but for blanks at the ends."""
    hits = sum(
        any(hypothesis.strip() == line.strip() for line in lines)
        for hypothesis, *lines in zip(hypotheses, *references, strict=True)
    )
    return [Score("exact match", 100 * hits / len(hypotheses), f"nrefs:{len(references)}|case:mixed")]


METRICS: dict[str, Metric] = {
    "bleu": bleu,
    "chrf": chrf,
    "ter": ter,
    "rouge": rouge,
    "exact_match": exact_match,
}
