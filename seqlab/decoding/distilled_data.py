"""Training data for sequence-level distillation: the targets are texts of a teacher (Kim & Rush 2016)."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqlab.config import Search
from seqlab.data.records import PreparedData
from seqlab.decoding.lines import decode_lines
from seqlab.decoding.requests import Lines
from seqlab.decoding.resumed_output import record_of, resumed_output
from seqlab.decoding.trained import TrainedModel
from seqlab.decoding.windows import WINDOW, windows_of
from seqlab.system.digests import digest_of
from seqlab.system.errors import SeqlabError
from seqlab.system.files import open_output
from seqlab.system.progress_bar import progress

TRAIN = "train"


def distill(trained: TrainedModel, search: Search, data: PreparedData, out: Path) -> dict[str, int]:
    """Writes the splits of prepared data into a folder, as files of JSON lines with the columns of the data, and
    returns their numbers of examples. In train.jsonl, the targets are the teacher's best texts.

    An interrupted train.jsonl is continued. The other files are written once it is complete. Raises `SeqlabError` for
    a task without sources, for columns that are not text, and for a file of another teacher, search or data.
    """
    name, columns = type(trained.task).__name__, trained.task.columns
    if not {"source", "target"} <= columns.keys() or not trained.task.searches:
        raise SeqlabError(f"{name} does not generate targets for sources: distill a translation or summarization run")
    if data.bytes_columns:
        raise SeqlabError(f"the column {data.bytes_columns[0]!r} contains bytes, which JSON cannot represent")
    train, count = out / f"{TRAIN}.jsonl", data.size(TRAIN)
    if train.exists() and not record_of(train).exists():
        raise SeqlabError(f"{train} exists and was not written by this command: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    identity = {
        "data": data.hashes[TRAIN],
        "parameters": digest_of(trained.params),
        "model": repr(trained.model),
        "search": dataclasses.asdict(search),
    }
    with resumed_output(train, identity, 1) as (stream, done):
        for example in with_decoded_targets(trained, search, data, done):
            stream.write(json_line(example))
    splits = {split: number for split, number in data.counts.items() if split != TRAIN}
    for split in splits:
        with open_output(out / f"{split}.jsonl") as stream:
            stream.writelines(map(json_line, data.read(split)))
    return {TRAIN: count, **splits}


def with_decoded_targets(
    trained: TrainedModel, search: Search, data: PreparedData, start: int
) -> Iterator[dict[str, Any]]:
    """Yields the training examples from `start` on, with decoded targets."""
    for window in windows_of(data.read(TRAIN, start), None, WINDOW):
        lines = Lines([example["source"] for example in window], first=start + 1)
        with progress("decoding", len(window)) as advance:
            decoded = decode_lines(trained, lines, search, progress=advance)
        start += len(window)
        for example, texts in zip(window, decoded, strict=True):
            yield {**example, "target": texts[0].text}


def json_line(example: dict[str, Any]) -> str:
    return json.dumps(example, ensure_ascii=False) + "\n"
