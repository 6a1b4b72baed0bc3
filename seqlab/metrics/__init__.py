"""Scores of plain text: thin over sacrebleu and rouge-score, and exact match."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

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


def tokenized_bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """Corpus BLEU by sacrebleu of text that is tokenized already; compare only with the same tokenization."""
    from sacrebleu.metrics.bleu import BLEU

    return [_sacrebleu(BLEU(tokenize="none", force=True), hypotheses, references)]


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

    signature = f"nrefs:{len(references)}|f1:mean|stemming:no|tok:ascii|rouge-score:{version('rouge-score')}"
    return [Score(name, float(x.mean()), signature) for name, x in rouge_by_line(hypotheses, references).items()]


def rouge_by_line(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    from rouge_score.rouge_scorer import RougeScorer

    names = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
    scorer = RougeScorer(list(names), use_stemmer=False)
    lines = [scorer.score_multi(refs, line) for line, *refs in zip(hypotheses, *references, strict=True)]
    return {label: 100 * np.array([one[name].fmeasure for one in lines]) for name, label in names.items()}


def exact_match(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """The share of lines, in percent, that equal one of their references but for blanks at the ends."""
    hits = matches_by_line(hypotheses, references)["exact match"]
    return [Score("exact match", float(hits.mean()), f"nrefs:{len(references)}|case:mixed")]


def matches_by_line(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    pairs = zip(hypotheses, *references, strict=True)
    hits = [any(line.strip() == reference.strip() for reference in refs) for line, *refs in pairs]
    return {"exact match": 100.0 * np.array(hits)}


def accuracy(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """The share of lines, in percent, whose class is the right one."""
    hits = accuracy_by_line(hypotheses, references)["accuracy"]
    return [Score("accuracy", float(hits.mean()), f"nrefs:{len(references)}|lines:{len(hypotheses)}")]


def accuracy_by_line(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    return {"accuracy": matches_by_line(hypotheses, references)["exact match"]}


def mse(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """Mean squared error of lines that are numbers, against one reference: lower is better."""
    if len(references) != 1:
        raise SeqlabError("a mean squared error is against one reference")
    try:
        found, wanted = (np.array(lines, np.float64) for lines in (hypotheses, references[0]))
    except ValueError as error:
        raise SeqlabError(f"a mean squared error is of lines that are numbers: {error}") from None
    return [Score("mean squared error", float(((found - wanted) ** 2).mean()), f"nrefs:1|lines:{len(found)}")]


METRICS: dict[str, Metric] = {
    "bleu": bleu,
    "tokenized_bleu": tokenized_bleu,
    "chrf": chrf,
    "ter": ter,
    "rouge": rouge,
    "exact_match": exact_match,
    "accuracy": accuracy,
    "mse": mse,
}
# Of the metrics that are means over lines: what is averaged.
BY_LINE = {"rouge": rouge_by_line, "exact_match": matches_by_line, "accuracy": accuracy_by_line}
