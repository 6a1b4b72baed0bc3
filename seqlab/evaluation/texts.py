"""The texts of the systems that are compared, from runs and from files, with their references."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.data.records import prepare
from seqlab.data.text_files import read_lines
from seqlab.decoding.decoded_split import decode_split
from seqlab.evaluation.buckets import frequencies
from seqlab.evaluation.versions import versions
from seqlab.metrics.registry import find_metric
from seqlab.runs import checkpoint
from seqlab.runs.loading import Run, load
from seqlab.system.errors import SeqlabError

DEFAULT_METRICS = ("bleu", "chrf", "ter")  # for a comparison of files without runs


class System(NamedTuple):
    """A system: its name, and its texts of the same lines for each seed."""

    name: str
    seeds: list[list[str]]


class Texts(NamedTuple):
    """The texts of a comparison. `sources`, and `seen`, the word counts of the training data, are None if unknown.
    `facts` is the provenance.
    """

    systems: list[System]
    references: list[list[str]]
    sources: list[str] | None
    seen: Mapping[str, int] | None
    metrics: tuple[str, ...]
    facts: dict[str, Any]


def read_texts(path: Path) -> list[str]:
    """Returns the lines of a file. Raises for a file without lines."""
    if path.is_dir():
        raise SeqlabError(f"{path} is a folder, not a text file; `seqlab evaluate` scores a run")
    if not path.exists():
        raise SeqlabError(f"{path} does not exist")
    lines = list(read_lines(path))
    if not lines:
        raise SeqlabError(f"{path} is empty")
    return lines


def gather_texts(
    names: Sequence[str],
    references: Sequence[Path],
    data_dir: Path,
    split: str = "test",
    source: Path | None = None,
    train: Path | None = None,
    metrics: Sequence[str] = (),
    loaded: Mapping[str, Run] | None = None,
) -> Texts:
    """Gathers the texts of systems. A name is a run, a file, or several seeds of one system separated by commas.

    `loaded` maps names to loaded runs. Runs supply the sources and references of the split and the words of the
    training data; files need them as arguments. Raises `SeqlabError` if the numbers of lines differ.
    """
    for name in metrics:
        find_metric(name)
    lines_of = {path: read_texts(path) for path in (*references, *([source] if source else []))}
    files: dict[str, Any] = {str(path): digest_of_lines(lines) for path, lines in lines_of.items()}
    reference_files = {str(path): lines_of[path] for path in references}
    sources = lines_of[source] if source else None
    seen = frequencies(read_texts(train)) if train else None
    runs: list[Run] = []
    systems: list[System] = []
    written: dict[str, list[str]] = {}
    hashes: dict[str, str] = {}
    for name in names:
        seeds = [name] if os.path.exists(name) else name.split(",")
        for part in seeds:
            if not part:
                raise SeqlabError(f"{name!r}: a name is empty: remove the extra comma")
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
                raise SeqlabError(f"split {split} of {part} differs from that of {next(iter(hashes))}")
            experiment = run.experiment
            task = experiment.task
            if not task.metrics:
                raise SeqlabError(f"{part}: {type(task).__name__} has no metrics to compare")
            decoded = decode_split(run.trained, experiment.search, data, split, data.size(split))
            written[part] = decoded.texts
            files[part] = {"step": run.step, "sha256": checkpoint.fingerprint(run.folder, run.step)}
            sources = sources or decoded.sources
            reference_files = reference_files or {f"split {split}": decoded.references}
            if seen is None and "target" in task.columns:
                seen = frequencies(example["target"] for example in data.read("train"))
        systems.append(System(name, [written[part] for part in seeds]))
    if not reference_files:
        raise SeqlabError("files need references: give --references")
    check_sizes({**written, **({"the source": sources} if sources is not None else {}), **reference_files})
    copies = [name for name, lines in reference_files.items() if lines == sources]
    if copies:
        raise SeqlabError(f"{copies[0]} equals the source: give translations as references")
    metric_names = tuple(metrics) or tuple(runs[0].experiment.task.metrics if runs else DEFAULT_METRICS)
    facts = {"files": files, "split": split if runs else None, "data": hashes, "versions": versions()}
    return Texts(systems, list(reference_files.values()), sources, seen, metric_names, facts)


def digest_of_lines(lines: Sequence[str]) -> dict[str, Any]:
    """Returns the number of lines, and the SHA-256 of the lines, each followed by a newline."""
    return {
        "lines": len(lines),
        "sha256": hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest(),
    }


def check_sizes(texts: Mapping[str, Sequence[str]]) -> None:
    """Raises `SeqlabError` for a text whose number of lines differs from the last one's."""
    *_, last = texts
    for name, lines in texts.items():
        if len(lines) != len(texts[last]):
            unit = "line" if len(lines) == 1 else "lines"
            raise SeqlabError(f"{name} has {len(lines):,} {unit}, but {last} has {len(texts[last]):,}")
