"""The evidence by which `scripts/torture.py` compares two runs."""

import hashlib
import json
from pathlib import Path

from seqlab.data.records import FACTS, PREPARED_RECORD, VERSION, PreparedData
from seqlab.runs import checkpoint, manifest

# Only the names of these files are compared: they contain paths or random names of Orbax, or are compressed.
NAME_ONLY = ("command.txt", manifest.MANIFEST, "*.array_record-*")


def evidence(home: Path) -> dict[str, str]:
    """Returns, by name, the items that must be equal for a killed run and an uninterrupted run.

    `home` has the run and its data, in the folders "run" and "data".
    """
    run = home / "run"
    items: dict[str, str] = {}
    for step in manifest.checkpoint_steps(run):
        items[f"fingerprint of step {step}"] = checkpoint.fingerprint(run, step)
        items[f"progress at step {step}"] = json.dumps(manifest.read_manifest(run, step)["progress"])
    for record in sorted((home / "data").rglob(PREPARED_RECORD)):
        facts = json.loads(record.read_text())
        data = PreparedData(record.parent / VERSION, *(facts[name] for name in FACTS))
        for split in data.counts:
            items[f"examples of {record.parent.name}, {split}"] = digest(json.dumps(list(data.read(split))).encode())
    for path in sorted(path for folder in ("run", "data") for path in (home / folder).rglob("*") if path.is_file()):
        parts = path.relative_to(home).parts
        if not {"tensorboard", "state"} & set(parts):
            items["/".join(parts)] = "there" if any(map(path.match, NAME_ONLY)) else digest(path.read_bytes())
    return items


def digest(content: bytes) -> str:
    """Returns the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def differences(expected: dict[str, str], actual: dict[str, str]) -> list[str]:
    """Returns the names of the items that differ or are missing on one side."""
    return [name for name in {**expected, **actual} if expected.get(name) != actual.get(name)]
