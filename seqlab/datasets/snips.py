"""SNIPS: spoken commands with an intent and with a slot for each word (Coucke et al. 2018).

The files are those of `MiuLab/SlotGated-SLU`, data/snips, at revision 61f0307 (Goo et al. 2018): 13,084 commands for
training, 700 for validation and 700 for testing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from seqlab.data.verified_files import read_verified
from seqlab.system.checks import check_choice
from seqlab.system.errors import SeqlabError

FOLDERS = {"train": "train", "validation": "valid", "test": "test"}
CHECKSUMS = {  # SHA-256
    "test/label": "37a26da3ad079bb41c42c85a3a8f827eb47efec4c5917ce5d08f4b2736e4f830",
    "test/seq.in": "c1e341173fcea2951a8ca371956a6f81c76de87b9583c62eb87edd6158fa3a7c",
    "test/seq.out": "58c07c9097d5e1f78889765c2a535a160f6455b90b3142055c8051847afcca47",
    "train/label": "bfd7df6cf9dd76c5da5d8b61bc85f90386197bdd3d7510c1d324c051537b962f",
    "train/seq.in": "04ad1e3f2121d83c6478f9a4b17d2dbdc21d06d6127f73cb7af835ed733f9855",
    "train/seq.out": "fd5f2121d8055827e5d6b3d3bac30f3d7e94e82a5d437751960cbdd9e1b4f6d3",
    "valid/label": "9c1dd041216f647bcfca838aaf1a48eb5781e4404256d31ff07cd38a5436c52f",
    "valid/seq.in": "64e0f6d8ad8aab3a3828164d7d53731a0993d3ca1aed437ceaca6d3d568d410e",
    "valid/seq.out": "712e6d34feb8d52d208b820a5f8bae6e6ff990f08374507dfde22de389088319",
}


@dataclass(frozen=True)
class Snips:
    labels: str = "slots"
    """Column `label`: slots, a BIO tag for each word; or intents, the intent of the command."""
    folder: str = ""
    """Folder with the original files; required until the data is prepared."""

    def __post_init__(self) -> None:
        check_choice("labels", self.labels, ("slots", "intents"))

    def key(self) -> str:
        return f"snips/{self.labels}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        if not self.folder:
            raise SeqlabError(
                f"{self.key()} is not prepared: run `seqlab prepare {self.key()} --folder DIR`, where DIR contains "
                "the files of MiuLab/SlotGated-SLU, data/snips"
            )
        return {split: self._examples(folder) for split, folder in FOLDERS.items()}

    def _examples(self, folder: str) -> Iterator[dict[str, str]]:
        names = ("seq.in", "seq.out" if self.labels == "slots" else "label")
        lines = (self._lines(f"{folder}/{name}") for name in names)
        for text, label in zip(*lines, strict=True):
            yield {"source": " ".join(text.split()), "label": " ".join(label.split())}

    def _lines(self, name: str) -> list[str]:
        return read_verified(self.folder, name, CHECKSUMS[name]).decode().rstrip("\n").split("\n")


DATASET = Snips
