"""The codec files of a run: codecs/COLUMNS.PART, such as codecs/source+target.sentencepiece."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from seqlab.codecs.codec import Codec, Codecs, content_of
from seqlab.system.errors import RESTORE, SeqlabError, with_advice
from seqlab.system.parts import module, part_name
from seqlab.system.untrusted import plain_files, read_json, read_whole, resolve_inside

FOLDER = "codecs"
RUN_RECORD = "data.json"


def codec_hashes(run: Path) -> dict[str, str]:
    """Returns the SHA-256 of each codec file of a run, by path relative to the run."""
    folder = run / FOLDER
    paths = plain_files(resolve_inside(run, FOLDER)) if folder.exists() else ()
    return {f"{FOLDER}/{path.name}": hashlib.sha256(read_whole(path)).hexdigest() for path in paths}


def save_codecs(codecs: Codecs, run: Path) -> None:
    """Writes a file for each codec, named after the columns that share it. Removes other codec files."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    columns: dict[Codec, list[str]] = {}
    for column, codec in codecs.items():
        columns.setdefault(codec, []).append(column)
    for codec, names in columns.items():
        (folder / f"{'+'.join(names)}.{part_name(codec)}").write_bytes(content_of(codec))


def load_codecs(run: Path, columns: Mapping[str, Codec]) -> Codecs:
    """Returns the codecs that `save_codecs` wrote, given the columns of a task with their unfitted codecs. Raises
    `SeqlabError` for a missing file, and for a file that differs from the run's record, if there is one.
    """
    record = read_record(run / RUN_RECORD).codecs if (run / RUN_RECORD).exists() else {}
    held = codec_hashes(run)
    changed = [name for name in {**record, **held} if record and record.get(name) != held.get(name)]
    if changed:
        raise SeqlabError(f"{run / changed[0]}: changed since the run was trained; {RESTORE}")
    codecs: Codecs = {}
    for name in held:
        path = resolve_inside(run, name)
        names, _, part = path.name.rpartition(".")
        with with_advice(RESTORE):
            codec = module("codecs", part).CODEC.load(read_whole(path), str(path))
        for column in names.split("+"):
            if column in columns:
                check_codec(columns[column], codec, f"{path}: column {column!r}")
                codecs[column] = codec
    missing = [column for column in columns if column not in codecs]
    if missing:
        raise SeqlabError(f"{run / FOLDER} has no codec for the column {missing[0]!r}; {RESTORE}")
    return {column: codecs[column] for column in columns}


def check_codec(template: Codec, codec: Codec, place: str) -> None:
    try:
        template.check(codec)
    except SeqlabError as error:
        raise SeqlabError(f"{place}: {error}") from None


class Record(NamedTuple):
    """The SHA-256 of each split, each codec file, and the parameters of each reference of a run."""

    splits: dict[str, str]
    codecs: dict[str, str]
    references: dict[str, str]


def read_record(path: Path) -> Record:
    """Reads the data.json of a run."""
    with with_advice(RESTORE):
        hashes = read_json(resolve_inside(path.parent, path.name), dict[str, str])

    def below(folder: str) -> dict[str, str]:
        return {name: value for name, value in hashes.items() if name.rpartition("/")[0] == folder}

    return Record(below(""), below(FOLDER), below("references"))
