"""The comparison of systems, which are runs or files of text: scores with intervals and tests, and buckets."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from seqlab.evaluation.buckets import BucketTable, tables
from seqlab.evaluation.doubts import doubts
from seqlab.evaluation.significance import RESAMPLES, TRIALS, TRIALS_OF_SEEDS, ScoreComparison, compare
from seqlab.evaluation.texts import Texts
from seqlab.metrics.metric import LineCounts
from seqlab.metrics.registry import count, find_metric, score_lines

SIGNIFICANCE_LEVEL = 0.05  # a p-value below it is marked


class MetricResult(NamedTuple):
    """The results of one metric: its signature, and the systems' scores by name."""

    signature: str
    scores: dict[str, list[ScoreComparison]]


class Comparison(NamedTuple):
    systems: list[str]
    lines: int
    judged: dict[str, MetricResult]
    tables: list[BucketTable]
    doubts: list[str]
    facts: dict[str, Any]


def compare_systems(texts: Texts, tokenized: bool = False) -> Comparison:
    """Compares all systems with the first by all metrics. Tables show the first seed of each, by the first metric."""
    judged = {}
    line_counts: dict[str, list[list[LineCounts]]] = {}
    for name in texts.metrics:
        line_counts[name] = [
            [count(name, lines, texts.references) for lines in system.seeds] for system in texts.systems
        ]
        judged[name] = MetricResult(line_counts[name][0][0].signature, compare(line_counts[name]))
    firsts, first = [system.seeds[0] for system in texts.systems], texts.metrics[0]
    line_scores = []
    if not line_counts[first][0][0].corpus:
        line_scores = [next(iter(score_lines(first, lines, texts.references).values())) for lines in firsts]
    bucket_tables = tables(
        firsts,
        texts.references[0],
        [counts[0] for counts in line_counts[first]],
        line_scores,
        texts.sources,
        texts.seen,
    )
    warnings = [
        f"{system.name}: {doubt}"
        for system in texts.systems
        for doubt in doubts(texts.metrics, system.seeds[0], texts.references, tokenized)
    ]
    return Comparison(
        [system.name for system in texts.systems], len(firsts[0]), judged, bucket_tables, warnings, texts.facts
    )


def format_comparison(comparison: Comparison) -> str:
    """Returns the comparison as text for a terminal."""
    width = max(12, *map(len, comparison.systems))
    lines = [f"{comparison.lines:,} lines; the first system is the baseline"]
    for metric_name, (signature, scores) in comparison.judged.items():
        direction = " (lower is better)" if find_metric(metric_name).lower_is_better else ""
        for name, systems in scores.items():
            lines += ["", f"{name}{direction}  {signature}"]
            lines += [
                f"  {label:{width}} {format_score(result, systems[0])}"
                for label, result in zip(comparison.systems, systems, strict=True)
            ]
    lines += [
        "",
        f"±: half of the 95 % interval over {RESAMPLES:,} resampled test sets. p: of a difference this large",
        f"between equal systems, by paired bootstrap and approximate randomization ({TRIALS:,} exchanges of lines;",
        f"{TRIALS_OF_SEEDS:,} for several seeds, shown with their deviation, and for a corpus metric). "
        f"*: below {SIGNIFICANCE_LEVEL}.",
    ]
    for table in comparison.tables:
        lines += ["", *format_table(table, comparison.systems)]
    return "\n".join(lines)


def format_score(result: ScoreComparison, first: ScoreComparison) -> str:
    """Returns a score with its interval, its difference from the first system and the p-values."""
    parts = [f"{result.value:7.2f} ± {result.interval:.2f}"]
    if result.deviation is not None:
        parts.append(f"seeds ± {result.deviation:.2f}")
    tests = {"bootstrap": result.bootstrap, "randomization": result.randomization}
    p_values = {name: p for name, p in tests.items() if p is not None}
    if p_values:
        parts.append(f"{result.value - first.value:+7.2f}")
        parts.append("p " + ", ".join(f"{p:.4f} ({name})" for name, p in p_values.items()))
        parts.append("*" if max(p_values.values()) < SIGNIFICANCE_LEVEL else "")
    return "  ".join(parts).rstrip()


def format_table(table: BucketTable, systems: Sequence[str]) -> list[str]:
    width = max(len(label) for label, _, _ in table.rows)
    names = [*systems, "reference"]
    columns = [max(7, len(name)) for name in names]

    def line(label: str, size: str, cells: Sequence[str]) -> str:
        return f"  {label:{width}} {size:>14}" + "".join(f"  {c:>{n}}" for c, n in zip(cells, columns, strict=False))

    result = [table.title, line("", table.counted, names[: len(table.rows[0][2])])]
    for label, size, values in table.rows:
        result.append(line(label, f"{size:,}", ["-" if value is None else f"{value:.1f}" for value in values]))
    return result
