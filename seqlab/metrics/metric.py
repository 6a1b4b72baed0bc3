"""TODO metrics.metric."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seqlab.system.errors import SeqlabError

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


def _means(rows: np.ndarray, names: Sequence[str], signature: str) -> Counted:
    """Scores that are means over lines of `rows` [lines, names]."""
    counts = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return Counted(counts, lambda total: dict(zip(names, (total[:-1] / total[-1]).tolist(), strict=True)), signature)


def _hits(hypotheses: Lines, references: Sequence[Lines]) -> Float[np.ndarray, "lines 1"]:
    pairs = zip(hypotheses, *references, strict=True)
    hits = [any(line.strip() == reference.strip() for reference in refs) for line, *refs in pairs]
    return 100.0 * np.array(hits)[:, None]


def _one_reference(references: Sequence[Lines], what: str) -> None:
    if len(references) != 1:
        raise SeqlabError(f"{what} is against one reference")
