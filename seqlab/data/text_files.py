"""Readers of text files (lines, parallel pairs and tables), which raise errors or repair malformed input."""

import contextlib
import gzip
import io
import itertools
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import json_reason

MAX_LINE = 1 << 20  # bytes

MAGIC = {  # first bytes of files that are not text
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\x00",
    "Zstandard": b"\x28\xb5\x2f\xfd",
    "zip": b"PK\x03\x04",
    "UTF-16": (b"\xff\xfe", b"\xfe\xff"),
}

# Counts of repairs by kind, for readers that repair lines ("replace"); None for readers that raise ("strict").
Repairs = Counter[str] | None


def read_lines(source: Path | BinaryIO | io.BufferedIOBase, repairs: Repairs = None) -> Iterator[str]:
    """Yields the lines of a UTF-8 text file (gzipped if its name ends in .gz) or of a binary stream.

    Line ends (\\n or \\r\\n) and a byte-order mark at the beginning are removed. Raises `SeqlabError` with the file
    and the line for a missing file, for a file whose compression does not match its name, and for a line that is not
    UTF-8, contains a NUL, or is longer than a megabyte. With `repairs`, such a line is repaired and counted instead:
    invalid bytes become U+FFFD, NULs are removed, and long lines are truncated.
    """
    name = str(source) if isinstance(source, Path) else "standard input"
    number = 0
    try:
        with _open_bytes(source) as stream:
            for number, (line, cut) in enumerate(_bounded_lines(stream), 1):
                packed = number == 1 and next((kind for kind, magic in MAGIC.items() if line.startswith(magic)), None)
                if packed:
                    raise SeqlabError(f"{name}: {_not_text(packed, isinstance(source, Path))}")
                text = _decode_line(line, cut, f"{name}:{number}", repairs)
                yield (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        position = f" after line {number}" if number else ""
        raise SeqlabError(f"{name}: cannot be read{position}: {reason}") from None


def _not_text(kind: str, is_file: bool) -> str:
    """Returns what is wrong with input of a kind of `MAGIC`, and what to do."""
    if kind == "UTF-16":
        return "the text is UTF-16: convert it to UTF-8"
    remedy = ", or add .gz to its name" if kind == "gzip" else ", or compress it with gzip"
    return f"the {'file' if is_file else 'input'} is compressed with {kind}: decompress it{remedy if is_file else ''}"


def _open_bytes(source: Path | BinaryIO | io.BufferedIOBase) -> contextlib.AbstractContextManager[Any]:
    if not isinstance(source, Path):
        return contextlib.nullcontext(source)
    return gzip.open(source) if source.suffix == ".gz" else source.open("rb")


def _bounded_lines(stream: Any) -> Iterator[tuple[bytes, int]]:
    """Yields lines of at most a megabyte, each with the number of bytes by which it was truncated."""
    for line in iter(lambda: stream.readline(MAX_LINE), b""):
        cut = 0
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            remainder = iter(lambda: stream.readline(MAX_LINE), b"")
            for part in remainder:
                cut += len(part)
                if part.endswith(b"\n"):
                    break
        yield line, cut


def _decode_line(line: bytes, cut: int, place: str, repairs: Repairs) -> str:
    if cut:
        _repair_or_raise(
            repairs,
            "truncated to a megabyte",
            f"{place}: a line of {len(line) + cut:,} bytes; the maximum is "
            f"{MAX_LINE:,}: split it, or set errors to 'replace' to truncate it",
        )
        # Truncation may have split a character of several bytes, whose first byte is one of the last four.
        last = next((n for n in range(1, 5) if not 0x80 <= line[-n] < 0xC0), 0)
        line = line[:-last] if last and line[-last] >= 0xC0 else line
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        _repair_or_raise(
            repairs, "not UTF-8", f"{place}: not UTF-8 ({error.reason} at byte {error.start} of the line)"
        )
        text = line.decode("utf-8", errors="replace")
    if "\0" in text:
        _repair_or_raise(repairs, "NUL", f"{place}: the line contains a NUL character")
        text = text.replace("\0", "")
    return text


def _repair_or_raise(repairs: Repairs, kind: str, message: str) -> None:
    """Counts a repair, or raises `SeqlabError` if there are no `repairs`."""
    if repairs is None:
        raise SeqlabError(message)
    repairs[kind] += 1


def make_repairs(errors: str) -> Repairs:
    """Returns the repairs for the field `errors` of a dataset: None for "strict", empty counts for "replace"."""
    if errors not in ("strict", "replace"):
        raise SeqlabError(f"errors must be 'strict' or 'replace', not {errors!r}")
    return Counter() if errors == "replace" else None


def describe_repairs(repairs: Repairs) -> dict[str, str]:
    """Returns the counts of repairs, for the `origin` of a dataset."""
    return {f"lines repaired ({kind})": str(count) for kind, count in (repairs or {}).items()}


def read_pairs(source: Path, target: Path, repairs: Repairs = None) -> Iterator[dict[str, str]]:
    """Yields the pairs of two parallel files. Raises `SeqlabError` with the line for files of unequal length and for
    an empty side; with `repairs`, a pair with an empty side is omitted and counted instead. Raises if no pairs
    remain.
    """
    any_pair = False
    pairs = itertools.zip_longest(read_lines(source, repairs), read_lines(target, repairs))
    for number, (left, right) in enumerate(pairs, 1):
        if left is None or right is None:
            short, long = (source, target) if left is None else (target, source)
            raise SeqlabError(f"{short} ends after line {number - 1}, but {long} continues: they are not parallel")
        empty = next((path for path, side in ((source, left), (target, right)) if not side.strip()), None)
        if empty is not None:
            _repair_or_raise(repairs, "omitted, empty", f"{empty}:{number}: empty line in parallel text")
        else:
            any_pair = True
            yield {"source": left, "target": right}
    if not any_pair:
        raise SeqlabError(f"{source} and {target}: no pairs of lines")


def read_table(path: Path, columns: dict[str, str], repairs: Repairs = None) -> Iterator[dict[str, str]]:
    """Yields the examples of a table, like `read_rows`. Raises `SeqlabError` if there are none, or if none remain."""
    any_example = False
    for example in read_rows(path, columns, repairs):
        any_example = True
        yield example
    if not any_example:
        raise SeqlabError(f"{path}: no examples")


def read_rows(path: Path, columns: dict[str, str], repairs: Repairs = None) -> Iterator[dict[str, str]]:
    """Yields examples from a .tsv, .jsonl or .txt file, optionally gzipped (.gz). `columns` maps the keys of the
    examples to the names of columns in the file.

    A .tsv file starts with a line of column names and has no quoting. A .jsonl file has one object per line. A .txt
    file has one column, of any name. Raises `SeqlabError` with the file and the line for a missing column, a row with
    another number of columns than the first line, a line that is not an object, and a value that is empty or not
    text. With `repairs`, such a line is omitted and counted instead.
    """
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in (".tsv", ".jsonl", ".txt"):
        raise SeqlabError(f"{path}: a table must be a .tsv, .jsonl or .txt file, optionally gzipped (.gz)")
    if kind == ".txt" and len(columns) != 1:
        raise SeqlabError(f"{path}: a text file has one column, not the columns {', '.join(map(repr, columns))}")
    lines = enumerate(read_lines(path, repairs), 1)
    names: list[str] = []
    if kind == ".tsv":
        names = next(lines, (1, ""))[1].split("\t")
        twice = next((name for name in columns.values() if names.count(name) > 1), None)
        if names == [""] or twice is not None:
            raise SeqlabError(f"{path}:1: " + (f"the column {twice!r} occurs twice" if twice else "no column names"))
        missing = [name for name in columns.values() if name not in names]
        if missing:
            raise SeqlabError(f"{path}:1: no column {missing[0]!r}: the file has {', '.join(map(repr, names))}")
    for number, line in lines:
        if kind == ".txt":
            yield dict.fromkeys(columns, line)
            continue
        row, reason = _fields(line, names) if kind == ".tsv" else _object(line)
        absent = next((name for name in columns.values() if reason is None and name not in row), None)
        if absent is not None:
            reason = f"no column {absent!r}"
        example = {field: row.get(column) for field, column in columns.items()}
        for field, value in example.items():
            scalar = isinstance(value, str | int | float) and not isinstance(value, bool)
            finite = not isinstance(value, float) or math.isfinite(value)
            if reason is None and not (scalar and finite and str(value).strip()):
                reason = f"{columns[field]!r} is empty or not text"
            if reason is None and re.search("[\0\ud800-\udfff]", str(value)):
                reason = f"{columns[field]!r} contains a NUL character or an unpaired surrogate"
        if reason is None:
            yield {field: str(value) for field, value in example.items()}
        else:
            _repair_or_raise(repairs, "omitted, malformed", f"{path}:{number}: {reason}")


def _fields(line: str, names: list[str]) -> tuple[dict[str, Any], str | None]:
    values = line.split("\t")
    if len(values) != len(names):
        return {}, f"{len(values)} column{'s' * (len(values) != 1)}, but the first line has {len(names)}"
    return dict(zip(names, values, strict=True)), None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(line: str) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return {}, f"not valid JSON: {json_reason(error)}"
    return (value, None) if isinstance(value, dict) else ({}, "not a JSON object")
