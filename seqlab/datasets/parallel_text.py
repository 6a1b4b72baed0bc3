"""Two line-aligned text files per split, each gzipped if its name ends in .gz."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seqlab.data.text_files import Repairs, describe_repairs, make_repairs, read_pairs
from seqlab.system.errors import SeqlabError
from seqlab.system.files import file_stamps

SPLITS, SIDES = ("train", "validation", "test"), ("source", "target")


@dataclass(frozen=True)
class ParallelText:
    train_source: str = ""
    """Source side of the training data."""
    train_target: str = ""
    """Target side of the training data."""
    validation_source: str = ""
    """Source side of the validation data."""
    validation_target: str = ""
    """Target side of the validation data."""
    test_source: str = ""
    """Source side of the test data (optional)."""
    test_target: str = ""
    """Target side of the test data (optional)."""
    errors: str = "strict"
    """strict: raise an error for a malformed line. replace: repair or omit the line, and count it."""

    path_fields: ClassVar[tuple[str, ...]] = tuple(f"{split}_{side}" for split in SPLITS for side in SIDES)

    def __post_init__(self) -> None:
        make_repairs(self.errors)

    def only(self, split: str) -> "ParallelText":
        """Returns the dataset with this split alone."""
        others = [name for name in self.path_fields if not name.startswith(f"{split}_")]
        return dataclasses.replace(self, **dict.fromkeys(others, ""))

    def files(self) -> dict[str, tuple[Path, Path]]:
        """Returns the files of the splits that have some."""
        files = {}
        if not any(getattr(self, name) for name in self.path_fields):
            raise SeqlabError("parallel_text needs train_source, train_target and so on: paths of text files")
        for split in SPLITS:
            pair = getattr(self, f"{split}_source"), getattr(self, f"{split}_target")
            if not any(pair):
                continue
            for side, name in zip(SIDES, pair, strict=True):
                if not name:
                    raise SeqlabError(f"parallel_text needs {split}_{side}: the path of a text file")
                if not Path(name).is_file():
                    raise SeqlabError(f"{split}_{side}: no file {name}")
            files[split] = Path(pair[0]), Path(pair[1])
        return files

    def key(self) -> str:
        """Returns a hash of the paths, sizes and modification times, so that changed files are prepared again."""
        identity = file_stamps((split, path) for split, pair in self.files().items() for path in pair)
        return f"parallel_text/{hashlib.sha256(repr((identity, self.errors)).encode()).hexdigest()[:16]}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        return {split: read_pairs(*pair, self._repairs) for split, pair in self.files().items()}

    @property
    def origin(self) -> dict[str, str]:
        return describe_repairs(self._repairs)

    @functools.cached_property
    def _repairs(self) -> Repairs:
        return make_repairs(self.errors)


DATASET = ParallelText
