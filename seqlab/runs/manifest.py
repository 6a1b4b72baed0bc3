"""The manifests of checkpoints, which list their files and detect damage."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqlab.system.errors import SeqlabError, with_advice
from seqlab.system.files import write_atomically
from seqlab.system.untrusted import fits, plain_files, read_json, resolve_inside

MANIFEST = "manifest.json"
STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # the name of the folder of a checkpoint


def checkpoint_steps(run: Path) -> list[int]:
    """Returns the steps of the checkpoints that have a manifest, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if STEP.fullmatch(p.name) and (p / MANIFEST).exists())


def read_manifest(run: Path, step: int) -> dict[str, Any]:
    """Returns the manifest of a checkpoint. Raises `SeqlabError` if it is damaged."""
    path = resolve_inside(run / "checkpoints", f"{step}/{MANIFEST}")
    manifest = read_json(path, dict[str, Any])
    digest = manifest.pop("sha256", None)
    check_manifest(manifest, step, run)
    if digest != _digest_of_manifest(manifest):
        raise SeqlabError(f"{path}: damaged: its SHA-256 does not match")
    return manifest


def write_manifest(run: Path, step: int, progress: dict[str, Any], files: dict[str, str]) -> None:
    """Writes the manifest of a checkpoint: the progress of training and the SHA-256 of each file."""
    manifest = {"step": step, "progress": progress, "files": files}
    content = {**manifest, "sha256": _digest_of_manifest(manifest)}
    write_atomically(run / "checkpoints" / str(step) / MANIFEST, json.dumps(content, indent=1))


def _digest_of_manifest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def verify(run: Path, step: int) -> dict[str, Any]:
    """Returns the manifest of a checkpoint. Raises `SeqlabError` if one of its files is damaged or missing."""
    folder, manifest = run / "checkpoints" / str(step), read_manifest(run, step)
    try:
        hashes, expected = hash_files(folder / "state"), manifest["files"]
    except OSError as error:
        raise SeqlabError(f"{folder}: cannot be read: {error}") from None
    if hashes != expected:
        bad = min(name for name in expected.keys() | hashes.keys() if expected.get(name) != hashes.get(name))
        raise SeqlabError(f"{folder}: damaged: {bad} does not match the manifest")
    return manifest


def newest_whole(run: Path, say: Callable[[str], None]) -> int | None:
    """Returns the step of the latest intact checkpoint, or None if there is no checkpoint.

    `say` reports the damaged checkpoints that are skipped. Raises `SeqlabError` if all checkpoints are damaged.
    """
    steps = checkpoint_steps(run)
    for step in reversed(steps):
        try:
            verify(run, step)
            return step
        except SeqlabError as error:
            say(f"CHECKPOINT {step} IS SKIPPED: {error}")
    if steps:
        raise SeqlabError(
            f"{run}: all checkpoints are damaged: restore one from a backup, or delete the folder "
            f"{run / 'checkpoints'} to train from the beginning"
        )
    return None


def check_manifest(manifest: Any, step: int, run: Path) -> dict[str, Any]:
    """Returns the manifest. Raises `SeqlabError` if it does not have the form of a manifest of this step."""
    kinds = {"step": int, "progress": dict[str, Any], "files": dict[str, str]}
    is_manifest = fits(manifest, dict[str, Any]) and all(
        fits(manifest.get(name), kind) for name, kind in kinds.items()
    )
    if not is_manifest or manifest["step"] != step:
        folder = run / "checkpoints" / str(step)
        raise SeqlabError(f"{folder / MANIFEST}: not a manifest of step {step}: delete the folder {folder}")
    return manifest


def choose_step(run: Path, name: str = "best") -> int:
    """Returns the step of the checkpoint "best", "last" or a number. Raises `SeqlabError` if it does not exist."""
    steps = checkpoint_steps(run)
    if not steps:
        raise SeqlabError(f"{run} has no checkpoint: train it first with `seqlab train CONFIG --out {run}`")
    if name == "last":
        return steps[-1]
    if name == "best":
        others = " or ".join(map(str, steps[:-1]))
        with with_advice(f"choose --checkpoint {others}" if others else "the run has no other checkpoint"):
            best = read_manifest(run, steps[-1])["progress"].get("best_step")
        if best not in [None, *steps]:  # of any type, since the manifest is not trusted
            known = ", ".join(map(str, steps))
            raise SeqlabError(f"{run}: the best checkpoint, {best}, is missing: choose last or a step ({known})")
        return steps[-1] if best is None else best
    if name.isdecimal() and int(name) in steps:
        return int(name)
    known = ", ".join(map(str, steps))
    raise SeqlabError(f"{run}: no checkpoint {name!r}: choose best, last or a step ({known})")


def hash_files(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file in a folder, by its path relative to the folder."""
    hashes = {}
    for path in plain_files(folder):
        with path.open("rb") as stream:
            hashes[str(path.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
