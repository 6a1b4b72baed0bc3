"""SICK: sentence pairs with their relatedness, from 1 to 5, and entailment (Marelli et al. 2014).

The files are those of `brmson/dataset-sts`, data/sts/sick2014, at revision e1d3375: 4,500 pairs for training, 500 for
validation and 4,927 for testing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from seqlab.data.verified_files import read_verified
from seqlab.system.errors import SeqlabError

FILES = {  # the file of each split and its SHA-256
    "train": ("SICK_train.txt", "266cf8047149bd1d68138dd30439f3122bff30069740ac6705bb6197d9f1b48e"),
    "validation": ("SICK_trial.txt", "5a88cfb62f8c6bd2a3cce0f2421ba2cb8c2be5ab4a800f6f01e2c64aafb7db56"),
    "test": ("SICK_test_annotated.txt", "2b8aa806658d6fc23c6824c83776c2d4fee7556000817b5ec0f982861413b7d0"),
}


@dataclass(frozen=True)
class Sick:
    """The columns are `source` and `second`, the two sentences; `label`, their entailment; and `target`, their
    relatedness.
    """

    folder: str = ""
    """Folder with the original files; required until the data is prepared."""

    def key(self) -> str:
        return "sick"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        if not self.folder:
            raise SeqlabError(
                "sick is not prepared: run `seqlab prepare sick --folder DIR`, where DIR contains the files of "
                "brmson/dataset-sts, data/sts/sick2014"
            )
        return {split: self._examples(*file) for split, file in FILES.items()}

    def _examples(self, name: str, checksum: str) -> Iterator[dict[str, str]]:
        for line in read_verified(self.folder, name, checksum).decode().splitlines()[1:]:
            _, first, second, relatedness, entailment = line.split("\t")
            yield {"source": first, "second": second, "label": entailment.lower(), "target": relatedness}


DATASET = Sick
