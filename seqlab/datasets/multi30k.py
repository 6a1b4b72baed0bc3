"""Multi30k, task 1: image captions in English and German (Elliott et al. 2016).

There are 29,000 training pairs, 1,014 validation pairs, and the test sets of 2016 and 2017. They are read from a
folder with the files of the `multi30k/dataset` repository, such as `raw/train.en` or `tok/train.lc.norm.tok.en`,
optionally gzipped.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seqlab.data.text_files import read_lines, read_pairs
from seqlab.system.errors import SeqlabError

# SHA-256 of the uncompressed files at revision a3d2e0d of the repository.
CHECKSUMS = {
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2017_flickr.de": "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081",
    "test_2017_flickr.en": "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "test_2016_flickr.lc.norm.tok.de": "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4",
    "test_2016_flickr.lc.norm.tok.en": "5b7f32627cf99eced828311b955dae9800bb52bc8b91cf8b6526829e605b29d2",
    "train.lc.norm.tok.de": "cb5a23529b65ec2061f1dc446192a9c37382b63cc75f81a0be59d34894b3a505",
    "train.lc.norm.tok.en": "08925f8e0572bcd5a006702fc5fe20e2d77c6917d4eebd576fc20de6693c2119",
    "val.lc.norm.tok.de": "97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00",
    "val.lc.norm.tok.en": "46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec",
}


@dataclass(frozen=True)
class Multi30k:
    pair: str = "en-de"
    """Language pair: en-de or de-en."""
    version: str = "raw"
    """Version of the text: raw, or tok (lowercased, normalized, tokenized with Moses)."""
    folder: str = ""
    """Folder with the original files; required until the data is prepared."""

    def __post_init__(self) -> None:
        if self.pair not in ("en-de", "de-en"):
            raise SeqlabError(f"multi30k has no pair {self.pair!r}: the pairs are en-de and de-en")
        if self.version not in ("raw", "tok"):
            raise SeqlabError(f"multi30k has no version {self.version!r}: the versions are raw and tok")

    def key(self) -> str:
        return f"multi30k/{self.pair}-{self.version}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        if not self.folder:
            raise SeqlabError(
                f"{self.key()} is not prepared: run `seqlab prepare multi30k/{self.pair} --version {self.version} "
                f"--folder DIR`, where DIR contains the task-1 files of Multi30k ({self.version}/...)"
            )
        source, target = self.pair.split("-")
        middle = "" if self.version == "raw" else ".lc.norm.tok"
        names = {"train": "train", "validation": "val", "test_2016_flickr": "test_2016_flickr"}
        if self.version == "raw":
            names["test_2017_flickr"] = "test_2017_flickr"
        paths = {
            split: (self._verified(f"{name}{middle}.{source}"), self._verified(f"{name}{middle}.{target}"))
            for split, name in names.items()
        }
        return {split: read_pairs(*pair) for split, pair in paths.items()}

    def _verified(self, name: str) -> Path:
        """Returns the path of a file in the folder, gzipped or not, after verifying its checksum."""
        folder = Path(self.folder)
        candidates = [place / (name + ending) for place in (folder / self.version, folder) for ending in (".gz", "")]
        path = next((path for path in candidates if path.exists()), None)
        if path is None:
            raise SeqlabError(f"{folder}: no file {self.version}/{name} or {self.version}/{name}.gz")
        digest = hashlib.sha256()
        for line in read_lines(path):
            digest.update(line.encode() + b"\n")
        if digest.hexdigest() != CHECKSUMS[name]:
            raise SeqlabError(
                f"{path}: wrong checksum {digest.hexdigest()[:16]}..., expected {CHECKSUMS[name][:16]}...; "
                "the file is incomplete or of another version: download it again"
            )
        return path


DATASET = Multi30k
