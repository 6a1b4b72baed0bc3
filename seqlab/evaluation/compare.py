"""Systems side by side, files of text or runs that write one: scores with intervals and tests, and buckets."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from seqlab.evaluation.buckets import Table, tables
from seqlab.evaluation.doubts import doubts
from seqlab.evaluation.significance import RESAMPLES, TRIALS, TRIALS_OF_SEEDS, Compared, compare
from seqlab.evaluation.texts import Texts
from seqlab.metrics.metric import Counted
from seqlab.metrics.registry import LOWER_IS_BETTER, count, score_lines

SURE = 0.05  # a p-value below it is marked


class Judged(NamedTuple):
    """What one metric says: its signature, and by score how each system fares."""

    signature: str
    scores: dict[str, list[Compared]]


class Comparison(NamedTuple):
    systems: list[str]
    lines: int
    judged: dict[str, Judged]
    tables: list[Table]
    doubts: list[str]
    facts: dict[str, Any]


def compared(texts: Texts, tokenized: bool = False) -> Comparison:
    """All systems by all metrics, against the first; in tables the first seed of each, by the first metric."""
    judged = {}
    counted: dict[str, list[list[Counted]]] = {}
    for name in texts.metrics:
        counted[name] = [[count(name, lines, texts.references) for lines in one.seeds] for one in texts.systems]
        judged[name] = Judged(counted[name][0][0].signature, compare(counted[name]))
    firsts, first = [one.seeds[0] for one in texts.systems], texts.metrics[0]
    alone = [next(iter(score_lines(first, lines, texts.references).values())) for lines in firsts]
    found = tables(firsts, texts.references[0], [one[0] for one in counted[first]], alone, texts.sources, texts.seen)
    asked = [
        f"{one.name}: {doubt}"
        for one in texts.systems
        for doubt in doubts(texts.metrics, one.seeds[0], texts.references, tokenized)
    ]
    return Comparison([one.name for one in texts.systems], len(firsts[0]), judged, found, asked, texts.facts)


def shown(comparison: Comparison) -> str:
    """For a terminal."""
    width = max(12, *map(len, comparison.systems))
    lines = [f"{comparison.lines:,} lines; the first system is what the others are compared with"]
    for signature, scores in comparison.judged.values():
        for name, systems in scores.items():
            lines += ["", f"{name}{' (lower is better)' if name in LOWER_IS_BETTER else ''}  {signature}"]
            lines += [
                f"  {label:{width}} {shown_score(one, systems[0])}"
                for label, one in zip(comparison.systems, systems, strict=True)
            ]
    lines += [
        "",
        f"±: half of the 95 % interval over {RESAMPLES:,} test sets drawn anew. p: of being as good as the first",
        f"system, by the paired bootstrap and by approximate randomization ({TRIALS:,} exchanges of lines;",
        f"{TRIALS_OF_SEEDS:,} where there are several seeds, whose deviation stands beside). *: below {SURE}.",
    ]
    for table in comparison.tables:
        lines += ["", *shown_table(table, comparison.systems)]
    return "\n".join(lines)


def shown_score(one: Compared, first: Compared) -> str:
    """A score with its interval, its distance from the first system's and the p-values of that."""
    parts = [f"{one.value:7.2f} ± {one.interval:.2f}"]
    if one.deviation is not None:
        parts.append(f"seeds ± {one.deviation:.2f}")
    tests = {"bootstrap": one.bootstrap, "randomization": one.randomization}
    known = {name: p for name, p in tests.items() if p is not None}
    if known:
        parts.append(f"{one.value - first.value:+7.2f}")
        parts.append("p " + ", ".join(f"{p:.4f} ({name})" for name, p in known.items()))
        parts.append("*" if max(known.values()) < SURE else "")
    return "  ".join(parts).rstrip()


def shown_table(table: Table, systems: Sequence[str]) -> list[str]:
    width = max(len(label) for label, _, _ in table.rows)
    names = [*systems, "reference"]
    columns = [max(7, len(name)) for name in names]

    def line(label: str, size: str, cells: Sequence[str]) -> str:
        return f"  {label:{width}} {size:>14}" + "".join(f"  {c:>{n}}" for c, n in zip(cells, columns, strict=False))

    found = [table.title, line("", table.counted, names[: len(table.rows[0][2])])]
    for label, size, values in table.rows:
        found.append(line(label, f"{size:,}", ["-" if value is None else f"{value:.1f}" for value in values]))
    return found
