"""Tokenized splits in a memory-mapped cache."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seqlab.data.records import PreparedData
from seqlab.data.tokenizers import Numbers, Tokenizers
from seqlab.system.errors import SeqlabError
from seqlab.system.files import make_folder_once
from seqlab.system.progress_bar import progress

CHUNK = 5_000  # examples tokenized at once
CACHE_FILES = {"ids": "<i4", "offsets": "<i8"}  # the files of a column in the cache, and the type of their numbers


@dataclass(frozen=True)
class Corpus:
    """A tokenized split: for each column all ids in one memory map, and the offset of each example.

    `parts`: for a mixture, the sizes of its consecutive parts and their rates. `folder`: where data derived from the
    ids may be cached. `sizes`: the vocabulary sizes by column; numbers have none.
    """

    ids: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]
    parts: tuple[tuple[int, float], ...] = ()
    folder: Path | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.offsets.values()))) - 1

    def row(self, column: str, i: int | np.integer) -> np.ndarray:
        return self.checked_ids(column, self.ids[column][self.offsets[column][i] : self.offsets[column][i + 1]])

    def checked_ids(self, column: str, ids: np.ndarray) -> np.ndarray:
        """Returns the ids. Raises `SeqlabError` for an id outside the vocabulary, as in a damaged cache."""
        # As an unsigned number, a negative id is large.
        if column in self.sizes and (ids.view(np.uint32) >= self.sizes[column]).any():
            raise SeqlabError(f"{column}.ids: an id outside the vocabulary of {self.sizes[column]:,}")
        return ids

    def lengths(self, *columns: str) -> np.ndarray:
        """Returns the number of tokens of each example, int64 [examples, columns]."""
        return np.stack([np.diff(self.offsets[column]) for column in columns], axis=1)


def tokenize(
    examples: Iterable[dict[str, str]],
    count: int,
    content: str,
    tokenizers: Tokenizers,
    root: Path,
) -> Corpus:
    """Returns the ids of `count` examples, from the cache below `root`, which is written first if it does not exist.

    `content` identifies the data: equal content and equal tokenizers have the same cache, and then no text is read.
    Memory is bounded by a chunk of lines. An interrupted run leaves no incomplete cache.
    """
    identity = json.dumps([content, {name: t.digest for name, t in sorted(tokenizers.items())}])
    folder = Path(root) / "cache" / hashlib.sha256(identity.encode()).hexdigest()[:24]
    make_folder_once(folder, lambda part: _tokenize_into(part, examples, count, tokenizers))
    ids, offsets = (
        {c: memory_map(folder / f"{c}.{end}", kind) for c in tokenizers} for end, kind in CACHE_FILES.items()
    )
    for column, starts in offsets.items():
        if (
            len(starts) != count + 1
            or starts[0] != 0
            or starts[-1] != len(ids[column])
            or (np.diff(starts) < 0).any()
        ):
            raise damaged_cache(folder / f"{column}.offsets")
    sizes = {name: len(tokenizer) for name, tokenizer in tokenizers.items() if not isinstance(tokenizer, Numbers)}
    return Corpus(ids, offsets, folder=folder, sizes=sizes)


def _tokenize_into(folder: Path, examples: Iterable[dict[str, str]], count: int, tokenizers: Tokenizers) -> None:
    files = {c: ((folder / f"{c}.ids").open("wb"), (folder / f"{c}.offsets").open("wb")) for c in tokenizers}
    ends = dict.fromkeys(tokenizers, 0)
    remaining = iter(examples)
    try:
        for _, offsets in files.values():
            offsets.write(np.zeros(1, "<i8").tobytes())
        with progress("tokenizing", count) as advance, ThreadPoolExecutor(1) as reader:

            def read() -> list[dict[str, str]]:
                return list(itertools.islice(remaining, CHUNK))

            ahead = reader.submit(read)
            while chunk := ahead.result():
                ahead = reader.submit(read)
                for column, tokenizer in tokenizers.items():
                    rows = tokenizer.encode([example[column] for example in chunk])
                    ids, offsets = files[column]
                    stops = ends[column] + np.cumsum([len(row) for row in rows], dtype="<i8")
                    ends[column] = int(stops[-1])
                    ids.write(np.fromiter(itertools.chain.from_iterable(rows), "<i4").tobytes())
                    offsets.write(stops.tobytes())
                advance(len(chunk))
    finally:
        for stream in itertools.chain.from_iterable(files.values()):
            stream.close()


def memory_map(path: Path, dtype: str) -> np.ndarray:
    """Returns the numbers of a cached file, in a memory map. Raises for a missing file or an invalid size."""
    if not path.is_file() or path.stat().st_size % np.dtype(dtype).itemsize:
        raise damaged_cache(path)
    # As a plain array: a slice of a np.memmap takes several times as long.
    return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.zeros(0, dtype)


def damaged_cache(path: Path) -> SeqlabError:
    return SeqlabError(f"{path}: damaged; remove {path.parent}, and it is made again")


def tokenize_split(
    data: PreparedData,
    split: str,
    tokenizers: Tokenizers,
    data_dir: Path,
    limit: int | None = None,
    rates: tuple[float, ...] = (),
) -> Corpus:
    """Returns the ids of the first `limit` examples of a split. `rates` are those of a mixture, used in training."""
    count = min(data.size(split), limit or data.size(split))
    content = f"{split} {count} {data.hashes[split]}"
    try:
        corpus = tokenize(data.read(split, 0, count), count, content, tokenizers, data_dir)
    except SeqlabError as error:
        raise SeqlabError(f"split {split}: {error}") from None
    return (
        dataclasses.replace(corpus, parts=tuple(zip(data.part_sizes[split], rates, strict=True))) if rates else corpus
    )
