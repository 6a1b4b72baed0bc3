"""Tiny Shakespeare: a million characters of plays (Karpathy 2015), one example per line.

The last 10% are for validation. The data is the file `input.txt`, optionally gzipped, from `karpathy/char-rnn`,
data/tinyshakespeare.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from seqlab.data.verified_files import read_verified
from seqlab.system.errors import SeqlabError

CHECKSUM = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True)
class TinyShakespeare:
    folder: str = ""
    """Folder of input.txt; required until the data is prepared."""

    def key(self) -> str:
        return "tiny_shakespeare"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        if not self.folder:
            raise SeqlabError("tiny_shakespeare is not prepared: run `seqlab prepare tiny_shakespeare --folder DIR`")
        content = read_verified(self.folder, "input.txt", CHECKSUM)
        text = content.decode()
        cut = int(0.9 * len(text))  # in the middle of a line, as is customary for this data
        halves = {"train": text[:cut], "validation": text[cut:]}
        return {name: ({"target": line} for line in half.split("\n")) for name, half in halves.items()}


DATASET = TinyShakespeare
