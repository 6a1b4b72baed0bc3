"""Local tables and texts: one .tsv, .jsonl or .txt file per split, each gzipped if its name ends in .gz.

    seqlab train CONFIG --data.train my.tsv --data.validation dev.tsv --data.source english --data.target german

Columns are selected by name. A text file has one text per line, in a single column. `read_lines` and
`read_table` in `seqlab.data.text_files` define malformed lines and their repairs.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seqlab.data.text_files import Repairs, describe_repairs, make_repairs, read_table
from seqlab.system.errors import SeqlabError
from seqlab.system.files import file_stamps

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class LocalFiles:
    train: str = ""
    """Training file."""
    validation: str = ""
    """Validation file."""
    test: str = ""
    """Test file (optional)."""
    source: str = ""
    """Column to use as the source; empty: none."""
    target: str = ""
    """Column to use as the target; empty: none."""
    label: str = ""
    """Column to use as the class; empty: none."""
    further_columns: tuple[tuple[str, str], ...] = ()
    """Other columns that a task needs, as pairs: the task's name of the column and its name in the files."""
    errors: str = "strict"
    """strict: raise an error for a malformed line. replace: repair or omit the line, and count it."""

    path_fields: ClassVar[tuple[str, ...]] = SPLITS

    def __post_init__(self) -> None:
        make_repairs(self.errors)

    def only(self, split: str) -> "LocalFiles":
        """Returns the dataset with this split alone."""
        return dataclasses.replace(self, **{name: "" for name in SPLITS if name != split})

    def files(self) -> dict[str, Path]:
        """Returns the files of the splits that have one."""
        paths = {split: Path(name) for split in SPLITS if (name := getattr(self, split))}
        if not paths:
            raise SeqlabError("local_files needs train and validation: paths of .tsv, .jsonl or .txt files")
        missing = next((f"{split}: no file {path}" for split, path in paths.items() if not path.is_file()), None)
        if missing is not None:
            raise SeqlabError(missing)
        return paths

    @property
    def columns(self) -> dict[str, str]:
        names_by_field = {field: getattr(self, field) for field in ("source", "target", "label")}
        columns = {field: name for field, name in names_by_field.items() if name} | dict(self.further_columns)
        return columns or {"target": "text"}

    def key(self) -> str:
        """Returns a hash of the columns and of the files' paths, sizes and modification times, so that changed files
        are prepared again.
        """
        identity = repr((file_stamps(self.files().items()), self.columns, self.errors))
        return f"local_files/{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        return {split: read_table(path, self.columns, self._repairs) for split, path in self.files().items()}

    @property
    def origin(self) -> dict[str, str]:
        return describe_repairs(self._repairs)

    @functools.cached_property
    def _repairs(self) -> Repairs:
        return make_repairs(self.errors)


DATASET = LocalFiles
