"""The folder of a run, which only the experiment that created it can open again."""

import dataclasses
import json
from pathlib import Path

from seqlab import catalogue
from seqlab.codecs.codec import Codecs
from seqlab.config import Checkpoints, Experiment, Parallel
from seqlab.data.codec_files import RUN_RECORD, codec_hashes, read_record, save_codecs
from seqlab.data.records import differing, with_absolute_paths
from seqlab.runs import manifest
from seqlab.system.errors import SeqlabError
from seqlab.system.files import check_creatable, write_atomically


def refuse_other_folder(run: Path) -> None:
    """Raises `SeqlabError` if a path exists and is neither a run nor the beginning of one, or cannot be created."""
    first_files = (
        "data.json*",
        "command.txt*",
        "experiment.json.part",
        ".lock",
        "codecs",
    )
    check_creatable(run)
    if not run.exists() or (run / "experiment.json").exists():
        return
    if not run.is_dir() or any(not any(map(p.match, first_files)) for p in run.iterdir()):
        raise SeqlabError(f"{run} exists but is not a run: choose another --out")


def open_run(
    experiment: Experiment, codecs: Codecs, content: dict[str, str], run: Path, command: str | None = None
) -> int:
    """Makes the folder of a run, or checks that the run there has the same experiment and the same `content`, the
    hashes of its data and of its references. A run can be given more steps. Returns the number of steps that it had
    before.

    Raises `SeqlabError` for another experiment or content, and for fewer steps.
    """
    path, hashes = run / "experiment.json", run / RUN_RECORD
    if path.exists():
        stored = catalogue.load_experiment(path)
        differences = catalogue.differences(without_resumable_fields(stored), without_resumable_fields(experiment))
        changed = [f"{line.replace(' -> ', ' in the run, ', 1)} in this command" for line in differences]
        if experiment.steps < stored.steps:
            rule = "the number of steps of a run can only be increased"
            changed.append(f"steps: {stored.steps} in the run, {experiment.steps} in this command ({rule})")
        if changed:
            remedy = (
                f", or start from the parameters of the run with --init-from {run}"
                if manifest.checkpoint_steps(run)
                else "; the run has no checkpoint, so its folder can also be deleted"
            )
            raise SeqlabError(
                f"{run} holds a different experiment:\n  " + "\n  ".join(changed) + f"\nchoose another --out{remedy}"
            )
        if hashes.exists():
            record = read_record(hashes)
            if changed := differing({**record.splits, **record.references}, content):
                part = f"the {changed[0].replace('s/', ' ')}" if "/" in changed[0] else "the data"
                raise SeqlabError(f"{part} of {run} has changed since the run started: choose another --out")
        if (experiment.steps, experiment.validation.patience) != (stored.steps, stored.validation.patience):
            save_command(run, command)
            catalogue.save_experiment(experiment, path)
        return stored.steps
    run.mkdir(parents=True, exist_ok=True)
    save_codecs(codecs, run)
    write_atomically(hashes, json.dumps({**content, **codec_hashes(run)}, indent=1))
    save_command(run, command)
    catalogue.save_experiment(experiment, path)
    return experiment.steps


def save_command(run: Path, command: str | None) -> None:
    if command is not None:
        write_atomically(run / "command.txt", command + "\n")


def without_resumable_fields(experiment: Experiment) -> Experiment:
    """Returns the experiment with defaults for the fields that may change when a run is resumed: those that change no
    result, and the number of steps and the patience, so that a finished run can be trained longer. Paths of data are
    absolute.
    """
    return dataclasses.replace(
        experiment,
        data=with_absolute_paths(experiment.data),
        steps=1,
        parallel=Parallel(),
        nonfinite="stop",
        hash_every=0,
        log_every=1,
        checkpoints=Checkpoints(),
        validation=dataclasses.replace(experiment.validation, patience=0),
    )
