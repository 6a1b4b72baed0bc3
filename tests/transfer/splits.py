"""Small tables, one for each split, and the dataset that reads them."""

import json

from seqlab.datasets.local_files import LocalFiles

SPLITS = ("train", "validation", "test")


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_splits(folder, row, counts=(60, 8, 8)):
    """Writes a table for each split into a folder. `row(i)` returns row i of each table."""
    for split, count in zip(SPLITS, counts, strict=True):
        write_rows(folder / f"{split}.jsonl", [row(i) for i in range(count)])


def splits_of(folder, **columns):
    """Returns the tables of a folder as a dataset."""
    return LocalFiles(*(str(folder / f"{split}.jsonl") for split in SPLITS), **columns)


def warm_day(i):
    return {"text": f"a warm day {i}"}


def day_of_kind(i):
    return {"text": f"a {'warm' if i % 2 else 'cold'} day {i}", "kind": "ab"[i % 2]}
