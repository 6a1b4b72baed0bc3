"""Scores of plain text: thin over sacrebleu and rouge-score, and shares of lines that are right.

A metric counts something in each line (n-grams that match, edits, hits), and its scores hinge on the sum of these
counts alone. So a corpus, a line of it, and a corpus drawn anew from its lines are scored by one function.
"""

import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqlab.errors import SeqlabError
from seqlab.metrics.rouge import NAMES, rouge_by_line

Lines = Sequence[str]


class Score(NamedTuple):
    """`signature` says all that the value hinges on; cite both."""

    name: str
    value: float
    signature: str


class Counted(NamedTuple):
    """What is counted in each line, `counts` float64 [lines, N]; by name the `values` of a sum of counts [N]; what
    these hinge on; and whether it is sacrebleu's, and is tested as sacrebleu does.
    """

    counts: np.ndarray
    values: Callable[[np.ndarray], dict[str, float]]
    signature: str
    sacrebleu: bool = False

    def scores(self) -> list[Score]:
        """The scores of all lines together."""
        return [Score(name, value, self.signature) for name, value in self.values(self.counts.sum(0)).items()]


class Metric(NamedTuple):
    """What it is; what it counts in hypotheses, against one or more lists of references; what it counts where each
    line is scored alone, if that is something else.
    """

    what: str
    counted: Callable[[Lines, Sequence[Lines]], Counted]
    counted_alone: Callable[[Lines, Sequence[Lines]], Counted] | None = None


def check_lines(hypotheses: Lines, references: Sequence[Lines]) -> None:
    """Raises for no lines, no references, or files of unequal length."""
    if not references:
        raise SeqlabError("no references to score against")
    if not hypotheses:
        raise SeqlabError("no hypotheses to score")
    for i, lines in enumerate(references, 1):
        if len(lines) != len(hypotheses):
            raise SeqlabError(f"{len(hypotheses)} hypotheses, but {len(lines)} lines in reference {i}")


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


def _sacrebleu(make: Callable[..., Any], label: str = "{}", **settings: Any) -> Callable[..., Counted]:
    """What a metric of sacrebleu counts; its scores get the name that sacrebleu gives them, in `label`."""

    def counted(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
        metric = make(**settings)
        counts = metric._extract_corpus_statistics(list(hypotheses), [list(lines) for lines in references])

        def values(total: np.ndarray) -> dict[str, float]:
            found = metric._compute_score_from_stats(total.tolist())
            return {label.format(found.name): found.score}

        return Counted(np.array(counts, np.float64), values, str(metric.get_signature()), sacrebleu=True)

    return counted


def _bleu(what: str, label: str = "{}", **settings: Any) -> Metric:
    def make(**settings: Any) -> Any:
        from sacrebleu.metrics.bleu import BLEU

        # The warning it silences, about text that looks tokenized, is `doubts`' here.
        return BLEU(force=True, **settings)

    alone = _sacrebleu(make, f"sentence {label}", effective_order=True, **settings)
    return Metric(what, _sacrebleu(make, label, **settings), alone)


def _chrf(word_order: int = 0) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=word_order)


def _ter() -> Any:
    from sacrebleu.metrics.ter import TER

    return TER()


def _means(rows: np.ndarray, names: Sequence[str], signature: str) -> Counted:
    """Scores that are means over lines of `rows` [lines, names]."""
    counts = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return Counted(counts, lambda total: dict(zip(names, (total[:-1] / total[-1]).tolist(), strict=True)), signature)


def _rouge(hypotheses: Lines, references: Sequence[Lines], stem: bool = False, tokenizer: str = "ascii") -> Counted:
    version = importlib.metadata.version("rouge-score")
    signature = (
        f"nrefs:{len(references)}|f1:mean|stemming:{'porter' if stem else 'no'}|tok:{tokenizer}|"
        f"sentences:newline|rouge-score:{version}"
    )
    return _means(rouge_by_line(hypotheses, references, stem, tokenizer), NAMES[tokenizer], signature)


def _hits(hypotheses: Lines, references: Sequence[Lines]) -> Float[np.ndarray, "lines 1"]:
    pairs = zip(hypotheses, *references, strict=True)
    hits = [any(line.strip() == reference.strip() for reference in refs) for line, *refs in pairs]
    return 100.0 * np.array(hits)[:, None]


def _exact_match(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    return _means(_hits(hypotheses, references), ["exact match"], f"nrefs:{len(references)}|case:mixed")


def _accuracy(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    signature = f"nrefs:{len(references)}|lines:{len(hypotheses)}"
    return _means(_hits(hypotheses, references), ["accuracy"], signature)


def _macro_f1(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    _one_reference(references, "macro-F1")
    wanted = [line.strip() for line in references[0]]
    classes = {name: i for i, name in enumerate(sorted({*wanted}))}
    counts = np.zeros((len(wanted), 3, len(classes)))  # right; named; wanted
    for row, line, right in zip(counts, hypotheses, wanted, strict=True):
        row[0, classes[right]] = line.strip() == right
        row[2, classes[right]] = 1
        if line.strip() in classes:
            row[1, classes[line.strip()]] = 1

    def values(total: np.ndarray) -> dict[str, float]:
        right, named, wanted = total.reshape(3, -1)
        there = (named + wanted) > 0  # of a class that is nowhere nothing is known
        return {"macro-F1": float(100 * (2 * right[there] / (named + wanted)[there]).mean())}

    signature = f"nrefs:1|lines:{len(wanted)}|classes:{len(classes)}"
    return Counted(counts.reshape(len(wanted), -1), values, signature)


def confusion(hypotheses: Lines, references: Lines) -> tuple[list[str], Int[np.ndarray, "C C"]]:
    """Classes in order, and how often each that was wanted (row) was called what (column)."""
    pairs = [(right.strip(), line.strip()) for right, line in zip(references, hypotheses, strict=True)]
    classes = sorted({name for pair in pairs for name in pair})
    places = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), int)
    for right, line in pairs:
        counts[places[right], places[line]] += 1
    return classes, counts


def _mse(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    _one_reference(references, "a mean squared error")
    try:
        found, wanted = (np.array(lines, np.float64) for lines in (hypotheses, references[0]))
    except ValueError as error:
        raise SeqlabError(f"a mean squared error is of lines that are numbers: {error}") from None
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        raise SeqlabError("a mean squared error is of lines that are finite numbers")
    return _means(((found - wanted) ** 2)[:, None], ["mean squared error"], f"nrefs:1|lines:{len(found)}")


def _one_reference(references: Sequence[Lines], what: str) -> None:
    if len(references) != 1:
        raise SeqlabError(f"{what} is against one reference")


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


def doubts(names: Sequence[str], hypotheses: Lines, references: Sequence[Lines], tokenized: bool) -> list[str]:
    """What should be asked of texts before their scores are cited: whether they are tokenized, unless that is meant,
    and whether ROUGE would drop letters of theirs.
    """
    found = []
    detokenized = [name for name in names if name in ("bleu", "bleu_zh", "chrf", "chrf++")]
    if detokenized and not tokenized:
        for what, lines in (("hypotheses", hypotheses), *(("references", one) for one in references)):
            ended = [line for line in lines if line.rstrip()[-1:] in (".", "!", "?")]
            apart = sum(line.rstrip()[-2:-1] == " " for line in ended)
            if apart > len(ended) / 2:
                found.append(
                    f"the {what} look tokenized (a blank before the end of {apart} of {len(ended)} sentences), "
                    f"and {detokenized[0]} is of text as it is read: --tokenized says that it is meant"
                )
                break
    if {*names} & {"rouge", "rouge_stemmed"}:
        lost = sum(any(c.isalpha() and not c.isascii() for c in line) for line in references[0])
        if lost:
            found.append(
                f"{lost} of {len(references[0])} references have letters that are not ASCII, which rouge-score's "
                "tokenizer drops: rouge_unicode keeps them"
            )
    return found
