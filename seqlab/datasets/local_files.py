"""Your own tables and texts: a .tsv, .jsonl or .txt file a split, each gzipped if its name ends in .gz.

    seqlab train CONFIG --data.train my.tsv --data.validation dev.tsv --data.source english --data.target german

Columns go by name. A text file has one column, the target of a language model. What a broken line is, and what
`errors` can mend, is written at `seqlab.data.text_files.read_lines` and `read_table`.
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
    validation: str = ""
    test: str = ""
    """May be left out."""
    source: str = ""
    """The column of the source; empty: there is none."""
    target: str = ""
    """The column of the target; empty: there is none."""
    label: str = ""
    """The column of the class; empty: there is none."""
    further_columns: tuple[tuple[str, str], ...] = ()
    """Columns of a task that has others: pairs of the task's name for a column and its name in the files."""
    errors: str = "strict"
    """strict: a broken line is an error. replace: it is mended or left out, and counted."""

    path_fields: ClassVar[tuple[str, ...]] = SPLITS

    def __post_init__(self) -> None:
        make_repairs(self.errors)

    def only(self, split: str) -> "LocalFiles":
        """Returns the data set with this split alone."""
        return dataclasses.replace(self, **{other: "" for other in SPLITS if other != split})

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
        """Names the columns, the files, their sizes and times of change: an edited file is prepared anew."""
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
