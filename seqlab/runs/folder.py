"""The folder of a run, which only the experiment that created it can open again."""

import dataclasses
import json
from pathlib import Path

from seqlab import catalogue
from seqlab.codecs.codec import Codecs
from seqlab.config import Experiment, Parallel
from seqlab.data.codec_files import RUN_RECORD, codec_hashes, read_record, save_codecs
from seqlab.data.records import differing
from seqlab.runs import manifest
from seqlab.system.errors import SeqlabError
from seqlab.system.files import write_atomically


def refuse_other_folder(run: Path) -> None:
    """Raises `SeqlabError` if a path exists and is neither a run nor the beginning of one."""
    first_files = (
        "data.json*",
        "command.txt*",
        "experiment.json.part",
        ".lock",
        "codecs",
    )
    if not run.exists() or (run / "experiment.json").exists():
        return
    if not run.is_dir() or any(not any(map(p.match, first_files)) for p in run.iterdir()):
        raise SeqlabError(f"{run} exists but is not a run: choose another --out")


def open_run(
    experiment: Experiment, codecs: Codecs, content: dict[str, str], run: Path, command: str | None = None
) -> None:
    """Creates the folder of a run. If it exists, checks that it has the same experiment and the same `content`, the
    hashes of its data and its references.

    Raises `SeqlabError` if they differ.
    """
    path, hashes = run / "experiment.json", run / RUN_RECORD
    if path.exists():
        changed = catalogue.differences(
            without_resumable_fields(catalogue.load_experiment(path)), without_resumable_fields(experiment)
        )
        if changed:
            resumable = bool(manifest.checkpoint_steps(run))
            remedy = (
                f"start from its parameters with --init-from {run}"
                if resumable
                else "delete it, since it has no checkpoint"
            )
            raise SeqlabError(
                f"{run} is a run of a different experiment:\n  "
                + "\n  ".join(changed)
                + f"\nchoose another --out, or {remedy}"
            )
        if hashes.exists():
            record = read_record(hashes)
            if changed := differing({**record.splits, **record.references}, content):
                part = f"the {changed[0].replace('s/', ' ')}" if "/" in changed[0] else "the data"
                raise SeqlabError(f"{part} of {run} has changed since the run started: choose another --out")
        return
    run.mkdir(parents=True, exist_ok=True)
    save_codecs(codecs, run)
    write_atomically(hashes, json.dumps({**content, **codec_hashes(run)}, indent=1))
    if command is not None:
        write_atomically(run / "command.txt", command + "\n")
    catalogue.save_experiment(experiment, path)


def without_resumable_fields(experiment: Experiment) -> Experiment:
    """Returns the experiment with defaults for the fields that may differ when a run resumes."""
    return dataclasses.replace(experiment, parallel=Parallel(), nonfinite="stop", hash_every=0)
