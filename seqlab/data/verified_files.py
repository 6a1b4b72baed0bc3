"""Files of published datasets, verified by their checksum."""

import gzip
import hashlib
import zlib
from pathlib import Path

from seqlab.system.errors import SeqlabError

LARGEST_FILE = 1 << 28  # bytes


def read_verified(folder: str, name: str, checksum: str) -> bytes:
    """Returns the content of the file `name`, or `name`.gz, in a folder. `checksum` is the SHA-256 of the content.

    Raises `SeqlabError` for a missing file, and for a file with other content.
    """
    path = next((p for p in (Path(folder) / f"{name}.gz", Path(folder) / name) if p.is_file()), None)
    if path is None:
        raise SeqlabError(f"{folder}: no file {name} or {name}.gz")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            content = stream.read(LARGEST_FILE)
    except (OSError, EOFError, zlib.error) as error:
        raise SeqlabError(f"{path}: cannot be read: {error}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != checksum:
        raise SeqlabError(
            f"{path}: wrong checksum {digest[:16]}..., expected {checksum[:16]}...; "
            "the file is incomplete or of another version: download it again"
        )
    return content
