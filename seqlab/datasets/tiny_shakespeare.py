"""Tiny Shakespeare: a million characters of plays (Karpathy 2015), one example per line.

The last 10% are for validation. The data is the file `input.txt`, optionally gzipped, from `karpathy/char-rnn`,
data/tinyshakespeare.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seqlab.system.errors import SeqlabError

CHECKSUM = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SIZE = 1_115_394  # bytes


@dataclass(frozen=True)
class TinyShakespeare:
    folder: str = ""
    """Folder of input.txt; required until the data is prepared."""

    def key(self) -> str:
        return "tiny_shakespeare"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        if not self.folder:
            raise SeqlabError("tiny_shakespeare is not prepared: run `seqlab prepare tiny_shakespeare --folder DIR`")
        path = next((p for name in ("input.txt.gz", "input.txt") if (p := Path(self.folder) / name).is_file()), None)
        if path is None:
            raise SeqlabError(f"{self.folder}: no file input.txt or input.txt.gz")
        # Read as bytes, not as lines: the checksum includes the end of the last line.
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rb") as stream:
                content = stream.read(SIZE + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise SeqlabError(f"{path}: cannot be read: {error}") from None
        digest = hashlib.sha256(content).hexdigest()
        if digest != CHECKSUM:
            raise SeqlabError(
                f"{path}: wrong checksum {digest[:16]}..., expected {CHECKSUM[:16]}...; "
                "the file is incomplete or of another version: download it again"
            )
        text = content.decode()
        cut = int(0.9 * len(text))  # in the middle of a line, as is customary for this data
        halves = {"train": text[:cut], "validation": text[cut:]}
        return {name: ({"target": line} for line in half.split("\n")) for name, half in halves.items()}


DATASET = TinyShakespeare
