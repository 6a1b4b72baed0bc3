"""Systems side by side, files of text or runs that write one: scores with intervals and tests, and buckets."""

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab import checkpoint
from seqlab.datasets import prepare
from seqlab.decode import Run, load
from seqlab.errors import SeqlabError
from seqlab.metrics import LOWER_IS_BETTER, Counted, count, doubts, metric, score_lines
from seqlab.metrics.buckets import Table, frequencies, tables
from seqlab.metrics.significance import RESAMPLES, TRIALS, TRIALS_OF_SEEDS, Compared, compare
from seqlab.text import read_lines
from seqlab.validate import decode_split

FILES = ("bleu", "chrf", "ter")  # what judges files, if nothing is asked for
PACKAGES = ("jax", "flax", "numpy", "sentencepiece", "sacrebleu", "rouge-score")  # that figures may hinge on
SURE = 0.05  # a p-value below it is marked


class System(NamedTuple):
    """A name, and texts of the same lines, once for each seed."""

    name: str
    seeds: list[list[str]]


class Texts(NamedTuple):
    """What is compared, and against what; sources, and how often training had a word, where they are known; what all
    of it came from.
    """

    systems: list[System]
    references: list[list[str]]
    sources: list[str] | None
    seen: Mapping[str, int] | None
    metrics: tuple[str, ...]
    facts: dict[str, Any]


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


def read_texts(path: Path) -> list[str]:
    """The lines of a file. Raises for one that has none."""
    if path.is_dir() or not path.exists():
        raise SeqlabError(f"no file {path}")
    lines = list(read_lines(path))
    if not lines:
        raise SeqlabError(f"{path} is empty")
    return lines


def gather(
    names: Sequence[str],
    references: Sequence[Path],
    data_dir: Path,
    split: str = "test",
    source: Path | None = None,
    train: Path | None = None,
    metrics: Sequence[str] = (),
    loaded: Mapping[str, Run] | None = None,
) -> Texts:
    """The texts of systems, each a run or a file, or some seeds of one with commas between them; runs that are
    `loaded` already, by their names. What runs know, the split's sources and references and the words of training,
    need not be given. Raises where lines are not as many.
    """
    for name in metrics:
        metric(name)
    read = {path: read_texts(path) for path in (*references, *([source] if source else []))}
    files: dict[str, Any] = {str(path): digest_of_lines(lines) for path, lines in read.items()}
    wanted = {str(path): read[path] for path in references}
    sources = read[source] if source else None
    seen = frequencies(read_texts(train)) if train else None
    runs: list[Run] = []
    systems: list[System] = []
    written: dict[str, list[str]] = {}
    hashes: dict[str, str] = {}
    for name in names:
        seeds = [name] if os.path.exists(name) else name.split(",")
        for part in seeds:
            if not part:
                raise SeqlabError(f"{name!r}: there is nothing at one of the commas between seeds")
            if part in written:
                continue
            if not Path(part).is_dir():
                written[part] = read_texts(Path(part))
                files[part] = digest_of_lines(written[part])
                continue
            run = (loaded or {}).get(part) or load(part)
            runs.append(run)
            data = prepare(run.experiment.data, data_dir)
            data.size(split)
            hashes[part] = data.hashes[split]
            if len({*hashes.values()}) > 1:
                raise SeqlabError(f"split {split} of {part} is another one than of {next(iter(hashes))}")
            experiment = run.experiment
            task = experiment.task
            if not task.metrics:
                raise SeqlabError(f"{part}: {type(task).__name__} writes nothing that could be compared")
            found = decode_split(experiment, run.params, run.tokenizers, data, split, data.size(split))
            written[part] = found.texts
            files[part] = {"step": run.step, "sha256": checkpoint.fingerprint(run.folder, run.step)}
            sources = sources or found.sources
            wanted = wanted or {f"split {split}": found.references}
            if seen is None and "target" in task.columns:
                seen = frequencies(example["target"] for example in data.read("train"))
        systems.append(System(name, [written[part] for part in seeds]))
    if not wanted:
        raise SeqlabError("files are compared with references: give --references")
    check_sizes({**written, **({"the source": sources} if sources is not None else {}), **wanted})
    same = [name for name, lines in wanted.items() if lines == sources]
    if same:
        raise SeqlabError(f"{same[0]} is the source itself: give translations as references")
    judges = tuple(metrics) or tuple(runs[0].experiment.task.metrics if runs else FILES)
    facts = {"files": files, "split": split if runs else None, "data": hashes, "versions": versions()}
    return Texts(systems, list(wanted.values()), sources, seen, judges, facts)


def digest_of_lines(lines: Sequence[str]) -> dict[str, Any]:
    """How many lines, and their SHA-256, each with a newline behind it."""
    return {
        "lines": len(lines),
        "sha256": hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest(),
    }


def check_sizes(texts: Mapping[str, Sequence[str]]) -> None:
    """Raises where texts have not as many lines as the last one."""
    *_, last = texts
    for name, lines in texts.items():
        if len(lines) != len(texts[last]):
            raise SeqlabError(f"{name} has {len(lines):,} lines, and {last} has {len(texts[last]):,}")


def versions() -> dict[str, str]:
    """Of seqlab, and of the packages that figures may hinge on."""
    return {name: importlib.metadata.version(name) for name in ("seqlab", *PACKAGES)}


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
