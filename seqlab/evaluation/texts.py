"""TODO evaluation.texts."""

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.data.records import prepare
from seqlab.data.text_files import read_lines
from seqlab.evaluation.buckets import frequencies
from seqlab.metrics.registry import metric
from seqlab.runs import checkpoint
from seqlab.runs.loading import Run, load
from seqlab.system.errors import SeqlabError
from seqlab.training.validation import decode_split

FILES = ("bleu", "chrf", "ter")  # what judges files, if nothing is asked for

PACKAGES = ("jax", "flax", "numpy", "sentencepiece", "sacrebleu", "rouge-score")  # that figures may hinge on


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
