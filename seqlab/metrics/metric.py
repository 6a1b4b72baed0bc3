"""Types and helper functions for metrics."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seqlab.system.errors import SeqlabError

TextLines = Sequence[str]


class Score(NamedTuple):
    """A named value. `signature` describes everything that the value depends on; cite both."""

    name: str
    value: float
    signature: str


class LineCounts(NamedTuple):
    """The counts of a metric for each line.

    `counts` is float64 [lines, N]. `values` maps a sum of counts [N] to scores by name. If scores are not a function
    of the sum (a rank correlation, for example), `corpus` is true, and `values` maps the counts of several lines
    [lines, N]. `signature` describes everything that the scores depend on. `sacrebleu` is true for metrics of
    sacrebleu, whose significance tests follow sacrebleu exactly.
    """

    counts: np.ndarray
    values: Callable[[np.ndarray], dict[str, float]]
    signature: str
    sacrebleu: bool = False
    corpus: bool = False

    def values_of(self, counts: np.ndarray) -> dict[str, float]:
        """Returns the scores, by name, of lines with these counts [lines, N]; a line may occur repeatedly."""
        return self.values(counts if self.corpus else counts.sum(0))

    def resample(self, times: np.ndarray) -> dict[str, float]:
        """Returns the scores, by name, of a corpus that contains each line as many times as `times` [lines] says."""
        return self.values(np.repeat(self.counts, times, axis=0) if self.corpus else times @ self.counts)

    def scores(self) -> list[Score]:
        """Returns the scores of all lines together."""
        return [Score(name, value, self.signature) for name, value in self.values_of(self.counts).items()]


CountLines = Callable[[TextLines, Sequence[TextLines]], LineCounts]


class Metric(NamedTuple):
    """A metric of hypotheses against one or more lists of references.

    `count_lines` counts for corpus scores, `count_single_lines` for the score of each line alone; None means that
    both are the same. `lower_is_better` applies to all scores of the metric.
    """

    description: str
    count_lines: CountLines
    count_single_lines: CountLines | None = None
    lower_is_better: bool = False


def check_lines(hypotheses: TextLines, references: Sequence[TextLines]) -> None:
    """Raises `SeqlabError` if there are no hypotheses or no references, or if their numbers of lines differ."""
    if not references:
        raise SeqlabError("no references to score against")
    if not hypotheses:
        raise SeqlabError("no hypotheses to score")
    for i, lines in enumerate(references, 1):
        if len(lines) != len(hypotheses):
            counts = [f"{n} line{'s' * (n != 1)}" for n in (len(lines), len(hypotheses))]
            raise SeqlabError(f"reference {i} has {counts[0]}, but the hypotheses have {counts[1]}")


def check_single_reference(references: Sequence[TextLines], name: str) -> None:
    """Raises `SeqlabError` unless there is exactly one list of references."""
    if len(references) != 1:
        raise SeqlabError(f"{name} needs exactly one reference, not {len(references)}")


def read_numbers(lines: TextLines, name: str) -> Float[np.ndarray, "lines"]:
    """Parses each line as a number. Raises `SeqlabError`, which names the metric, for a line that is not a finite
    number.
    """
    try:
        numbers = np.array(lines, np.float64)
    except ValueError as error:
        found = str(error).partition(": ")[2]
        raise SeqlabError(f"{name} needs a number on each line, not {found}") from None
    if not np.isfinite(numbers).all():
        raise SeqlabError(f"{name} needs a finite number on each line")
    return numbers


def sacrebleu_counter(make: Callable[..., Any], label: str = "{}", **settings: Any) -> CountLines:
    """Returns a function that counts with the sacrebleu metric `make(**settings)`. Scores are named by `label`,
    formatted with sacrebleu's name of the score.
    """

    def count_lines(hypotheses: TextLines, references: Sequence[TextLines]) -> LineCounts:
        metric = make(**settings)
        counts = metric._extract_corpus_statistics(list(hypotheses), [list(lines) for lines in references])

        def values(total: np.ndarray) -> dict[str, float]:
            score = metric._compute_score_from_stats(total.tolist())
            return {label.format(score.name): score.score}

        return LineCounts(np.array(counts, np.float64), values, str(metric.get_signature()), sacrebleu=True)

    return count_lines


def count_means(rows: Float[np.ndarray, "lines names"], names: Sequence[str], signature: str) -> LineCounts:
    """Returns counts whose scores are the means of `rows` over lines."""
    counts = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return LineCounts(
        counts, lambda total: dict(zip(names, (total[:-1] / total[-1]).tolist(), strict=True)), signature
    )


def percent_matching(hypotheses: TextLines, references: Sequence[TextLines]) -> Float[np.ndarray, "lines 1"]:
    """Returns 100 for each line that equals one of its references, ignoring leading and trailing blanks, and 0 for
    other lines.
    """
    pairs = zip(hypotheses, *references, strict=True)
    matches = [any(line.strip() == reference.strip() for reference in refs) for line, *refs in pairs]
    return 100.0 * np.array(matches)[:, None]
