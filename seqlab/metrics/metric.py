"""The types that every metric is made of, and the helpers that metrics share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seqlab.system.errors import SeqlabError

TextLines = Sequence[str]


class Score(NamedTuple):
    """A named value. `signature` states all that the value depends on; cite both."""

    name: str
    value: float
    signature: str


class LineCounts(NamedTuple):
    """What a metric counts in each line.

    `counts` is float64 [lines, N]. `values` maps a sum of counts [N] to scores by name. `signature` states what the
    scores depend on. `sacrebleu` says whether the metric is sacrebleu's, and so is tested exactly as sacrebleu does.
    """

    counts: np.ndarray
    values: Callable[[np.ndarray], dict[str, float]]
    signature: str
    sacrebleu: bool = False

    def scores(self) -> list[Score]:
        """Returns the scores of all lines together."""
        return [Score(name, value, self.signature) for name, value in self.values(self.counts.sum(0)).items()]


CountLines = Callable[[TextLines, Sequence[TextLines]], LineCounts]


class Metric(NamedTuple):
    """A metric of hypotheses against one or more lists of references.

    `count_lines` counts for the scores of a corpus. `count_single_lines` counts for the score of each line alone,
    where that differs; None: it is `count_lines`.
    """

    description: str
    count_lines: CountLines
    count_single_lines: CountLines | None = None


def check_lines(hypotheses: TextLines, references: Sequence[TextLines]) -> None:
    """Raises for no lines, no references, or files of unequal length."""
    if not references:
        raise SeqlabError("no references to score against")
    if not hypotheses:
        raise SeqlabError("no hypotheses to score")
    for i, lines in enumerate(references, 1):
        if len(lines) != len(hypotheses):
            raise SeqlabError(f"{len(hypotheses)} hypotheses, but {len(lines)} lines in reference {i}")


def check_single_reference(references: Sequence[TextLines], name: str) -> None:
    """Raises for more than one list of references."""
    if len(references) != 1:
        raise SeqlabError(f"{name} is against one reference")


def sacrebleu_counter(make: Callable[..., Any], label: str = "{}", **settings: Any) -> CountLines:
    """Returns a function that counts as `make(**settings)`, a metric of sacrebleu, does. Scores have the name that
    sacrebleu gives them, formatted into `label`.
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
    """Returns counts whose scores are the means over lines of `rows`."""
    counts = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return LineCounts(
        counts, lambda total: dict(zip(names, (total[:-1] / total[-1]).tolist(), strict=True)), signature
    )


def percent_matching(hypotheses: TextLines, references: Sequence[TextLines]) -> Float[np.ndarray, "lines 1"]:
    """Returns 100 for each line that equals one of its references but for blanks at the ends, and 0 for the rest."""
    pairs = zip(hypotheses, *references, strict=True)
    matches = [any(line.strip() == reference.strip() for reference in refs) for line, *refs in pairs]
    return 100.0 * np.array(matches)[:, None]
