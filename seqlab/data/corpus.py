"""Encoded splits in a memory-mapped cache."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqlab.codecs.codec import Codec, Codecs, Value, as_row, encode_values
from seqlab.data.records import PreparedData
from seqlab.system.errors import DamagedCache, SeqlabError
from seqlab.system.files import make_folder_once
from seqlab.system.progress_bar import progress

CHUNK = 5_000  # number of examples that are encoded at once
CACHE_VERSION = 2  # version of the file format; part of the identity of a cache


@dataclass(frozen=True)
class Corpus:
    """An encoded split: for each column, the elements of all rows in one memory map, and the offset of each row.

    `index`: the row of each example, for columns that store equal values once; in other columns row i is example i.
    `parts`: the sizes of the consecutive parts of a mixture and their rates. `folder`: where data derived from the
    arrays is cached. `sizes`: the number of ids by column, for columns whose elements are ids.
    """

    values: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]
    index: dict[str, np.ndarray] = field(default_factory=dict)
    parts: tuple[tuple[int, float], ...] = ()
    folder: Path | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        column = next(iter(self.offsets))
        return len(self.index[column]) if column in self.index else len(self.offsets[column]) - 1

    def row(self, column: str, i: int | np.integer) -> np.ndarray:
        """Returns the row of an example, [N *shape]."""
        at = self.index[column][i] if column in self.index else i
        offsets = self.offsets[column]
        return self.checked_ids(column, self.values[column][offsets[at] : offsets[at + 1]])

    def checked_ids(self, column: str, values: np.ndarray) -> np.ndarray:
        """Returns the values. Raises `SeqlabError` for an id outside the vocabulary, as in a damaged cache."""
        # Viewed as unsigned integers, negative ids are large.
        if column in self.sizes and (values.view(f"u{values.itemsize}") >= self.sizes[column]).any():
            raise DamagedCache(f"{column}.values: an id is outside the vocabulary of {self.sizes[column]:,}")
        return values

    def counts(self, column: str, selected: np.ndarray) -> np.ndarray:
        """Returns the number of ids of each example that are `selected`, a bool for each id, int64 [examples]."""
        offsets, values = self.offsets[column], self.values[column]
        counts = np.zeros(len(offsets) - 1, np.int64)
        for begin in range(0, len(counts), CHUNK):
            ends = offsets[begin : begin + CHUNK + 1]
            ids = self.checked_ids(column, values[ends[0] : ends[-1]])
            counts[begin : begin + CHUNK] = np.diff(np.append(0, np.cumsum(selected[ids]))[ends - ends[0]])
        return counts[self.index[column]] if column in self.index else counts

    def lengths(self, *columns: str) -> np.ndarray:
        """Returns the number of elements of each example, int64 [examples, columns]."""
        lengths = {column: np.diff(self.offsets[column]) for column in columns}
        return np.stack([lengths[c][self.index[c]] if c in self.index else lengths[c] for c in columns], axis=1)


def encode_examples(
    examples: Iterable[dict[str, Any]], count: int, content: str, codecs: Codecs, root: Path
) -> Corpus:
    """Returns `count` examples as arrays from the cache below `root`, which is written first if it does not exist.

    `content` identifies the data. If a cache for the same content and codecs exists, no example is read. Memory is
    bounded by a chunk of examples. An interrupted run leaves no incomplete cache.
    """
    identity = json.dumps([CACHE_VERSION, content, {name: codec.digest for name, codec in sorted(codecs.items())}])
    folder = Path(root) / "cache" / hashlib.sha256(identity.encode()).hexdigest()[:24]
    make_folder_once(folder, lambda part: _encode_into(part, examples, count, codecs))
    values, offsets, index = ({} for _ in range(3))
    for column, codec in codecs.items():
        values[column] = memory_map(folder / f"{column}.values", codec.dtype, codec.shape)
        starts = offsets[column] = memory_map(folder / f"{column}.offsets", "<i8")
        rows = count
        if codec.stores_once:
            rows = len(starts) - 1
            index[column] = memory_map(folder / f"{column}.index", "<i8")
            if len(index[column]) != count or not ((index[column] >= 0) & (index[column] < rows)).all():
                raise damaged_cache(folder / f"{column}.index")
        if (
            len(starts) != rows + 1
            or starts[0] != 0
            or starts[-1] != len(values[column])
            or (np.diff(starts) < 0).any()
        ):
            raise damaged_cache(folder / f"{column}.offsets")
    sizes = {name: codec.size for name, codec in codecs.items() if codec.size is not None}
    return Corpus(values, offsets, index, folder=folder, sizes=sizes)


class ColumnWriter:
    """Writes the rows of a column to the files of a cache."""

    def __init__(self, folder: Path, column: str, codec: Codec, files: contextlib.ExitStack):
        def create(name: str) -> Any:
            return files.enter_context((folder / f"{column}.{name}").open("wb"))

        self.codec, self.end = codec, 0
        self.values, self.offsets = create("values"), create("offsets")
        self.index = create("index") if codec.stores_once else None
        self.rows: dict[bytes, int] = {}  # by digest, for values that are stored once
        self.offsets.write(np.zeros(1, "<i8").tobytes())

    def write(self, values: Sequence[Value]) -> None:
        """Writes the rows of more values; only the first of equal values, if the codec stores them once."""
        if self.index is not None:
            digests = [value_digest(value) for value in values]
            new = {d: value for d, value in zip(digests, values, strict=True) if d not in self.rows}
            self.rows |= {d: len(self.rows) + i for i, d in enumerate(new)}
            self.index.write(np.array([self.rows[d] for d in digests], "<i8").tobytes())
            values = [*new.values()]
        rows = encode_values(values, self.codec)
        stops = self.end + np.cumsum([len(row) for row in rows], dtype="<i8")
        self.end = int(stops[-1]) if len(stops) else self.end
        if all(isinstance(row, list) for row in rows):  # one conversion is faster than one per row
            rows = [[*itertools.chain.from_iterable(rows)]]
        for row in rows:
            self.values.write(as_row(row, self.codec).tobytes())
        self.offsets.write(stops.tobytes())


def value_digest(value: Value) -> bytes:
    return hashlib.sha256(value if isinstance(value, bytes) else value.encode()).digest()


def _encode_into(folder: Path, examples: Iterable[dict[str, Any]], count: int, codecs: Codecs) -> None:
    remaining = iter(examples)
    with contextlib.ExitStack() as files:
        writers = {column: ColumnWriter(folder, column, codec, files) for column, codec in codecs.items()}
        with progress("tokenizing", count) as advance, ThreadPoolExecutor(1) as reader:

            def read() -> list[dict[str, Any]]:
                return list(itertools.islice(remaining, CHUNK))

            ahead, begin = reader.submit(read), 0
            while chunk := ahead.result():
                ahead = reader.submit(read)
                for column, writer in writers.items():
                    values = [example[column] for example in chunk]
                    try:
                        writer.write(values)
                    except SeqlabError as error:
                        raise first_error(values, writer.codec, column, begin, error) from None
                begin += len(chunk)
                advance(len(chunk))


def first_error(values: Sequence[Value], codec: Codec, column: str, begin: int, error: SeqlabError) -> SeqlabError:
    """Returns the `error` of all values with the place of the first value that causes it alone, or else of all. The
    first value belongs to example `begin` + 1.
    """
    for i, value in enumerate(values, begin + 1):
        try:
            as_row(encode_values([value], codec)[0], codec)
        except SeqlabError as alone:
            if str(alone) == str(error):
                return SeqlabError(f"column {column!r}, example {i}: {error}")
    return SeqlabError(f"column {column!r}, examples {begin + 1} to {begin + len(values)}: {error}")


def memory_map(path: Path, dtype: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Returns the elements of a cached file, [N *shape], as a memory map. Raises `SeqlabError` for a missing file or
    an invalid size.
    """
    if not path.is_file() or path.stat().st_size % (np.dtype(dtype).itemsize * math.prod(shape)):
        raise damaged_cache(path)
    if not path.stat().st_size:
        return np.zeros((0, *shape), dtype)
    # Returned as a plain array, since slicing an np.memmap takes several times as long.
    return np.asarray(np.memmap(path, dtype, "r")).reshape(-1, *shape)


def damaged_cache(path: Path) -> SeqlabError:
    return SeqlabError(f"{path}: damaged; remove {path.parent}, and it will be rebuilt")


def encode_split(
    data: PreparedData,
    split: str,
    codecs: Codecs,
    data_dir: Path,
    limit: int | None = None,
    rates: tuple[float, ...] = (),
) -> Corpus:
    """Returns the first `limit` examples of a split as arrays. `rates` are the rates of a mixture, for training."""
    count = min(data.size(split), limit or data.size(split))
    content = f"{split} {count} {data.hashes[split]}"
    try:
        corpus = encode_examples(data.read(split, 0, count), count, content, codecs, data_dir)
    except SeqlabError as error:
        raise SeqlabError(f"split {split}: {error}") from None
    return (
        dataclasses.replace(corpus, parts=tuple(zip(data.part_sizes[split], rates, strict=True))) if rates else corpus
    )
