"""Reading of untrusted files: with a size limit and a type check, and never outside their folder."""

import errno
import json
import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from seqlab.system.errors import SeqlabError

MAX_SIZE = 1 << 26  # maximum size of a file that is read at once, in bytes


def resolve_inside(folder: Path, name: str) -> Path:
    """Returns the path of a file in a folder. Raises `SeqlabError` if a name or a link leads out of the folder."""
    path = folder / name
    try:
        stays = path.resolve().is_relative_to(folder.resolve()) and not is_circular(path)
    except (OSError, RuntimeError, ValueError):  # circular links, or an invalid name
        stays = False
    if not stays:
        if os.path.islink(path):
            fault = "is a symbolic link to a place outside its folder, or to itself: replace the link with the file"
        else:
            fault = f"is outside the folder {folder}: a symbolic link or .. leads out of it; move the file into it"
        raise SeqlabError(f"{path} {fault}")
    return path


def is_circular(path: Path) -> bool:
    """Returns whether the links of a path are circular, which `resolve` accepts since Python 3.13."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def plain_files(folder: Path) -> Iterator[Path]:
    """Yields all files below a folder, sorted. Raises `SeqlabError` if the folder or anything in it is a link, or
    neither a regular file nor a folder.
    """
    for path in [folder, *sorted(folder.rglob("*"))]:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            found = "a symbolic link" if path.is_symlink() else "a device, pipe or socket"
            raise SeqlabError(f"{path}: not a regular file but {found}: replace it with a regular file")
        if path.is_file():
            yield path


def read_whole(path: Path, limit: int = MAX_SIZE) -> bytes:
    """Returns the bytes of a file. Raises `SeqlabError` if it is missing, irregular or larger than `limit`."""
    try:
        if not path.is_file():
            if path.exists():
                raise SeqlabError(f"{path} is not a regular file: replace it with one")
            raise SeqlabError(f"{path.parent} has no {path.name}")
        size = path.stat().st_size
        if size > limit:
            raise SeqlabError(f"{path}: it has {size:,} bytes, but the maximum is {limit:,}: use a smaller file")
        return path.read_bytes()
    except OSError as error:
        raise SeqlabError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_json(path: Path, kind: Any = Any) -> Any:
    """Returns the value in a JSON file, of type `kind` (see `fits`)."""
    return parse_json(read_whole(path), str(path), kind)


def parse_json(content: bytes, place: str, kind: Any = Any) -> Any:
    """Parses JSON in UTF-8 and returns its value, of type `kind`. Errors name the `place`."""
    try:
        text = content.decode("utf-8")
        value = json.loads(text)
        if "\\ud" in text.lower():  # half of a surrogate pair cannot be encoded again
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise SeqlabError(f"{place}: not valid JSON: {json_reason(error)}") from None
    if not fits(value, kind):
        raise SeqlabError(f"{place}: unexpected content: the file is damaged, or another version of seqlab wrote it")
    return value


def json_reason(error: Exception) -> str:
    """Returns the reason why JSON cannot be parsed, without details of Python."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({error.reason} at byte {error.start})"
    if isinstance(error, UnicodeEncodeError):
        return "contains an unpaired surrogate"
    return "contains a number with too many digits" if "digits" in str(error) else str(error)


def fits(value: Any, expected: Any) -> bool:
    """Returns whether a JSON value has the `expected` type: Any, None, bool, int (64 bits), float, str, a union or a
    Literal of these, or a list, tuple or dict of these. A list also counts as a tuple, and an int as a float.
    """
    kind, inner = get_origin(expected) or expected, get_args(expected)
    if kind is Any:
        return True
    if kind in (Union, types.UnionType):
        return any(fits(value, choice) for choice in inner)
    if kind is Literal:
        return value in inner
    if kind in (None, types.NoneType):
        return value is None
    if kind in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63
        return whole or (kind is float and isinstance(value, float))
    if kind in (list, tuple):
        if not isinstance(value, list | tuple):
            return False
        if kind is list or (len(inner) == 2 and inner[1] is ...):
            return all(fits(element, inner[0]) for element in value)
        return len(value) == len(inner) and all(map(fits, value, inner))
    if kind is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    return isinstance(value, kind)
