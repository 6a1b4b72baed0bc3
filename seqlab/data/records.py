"""Prepared datasets, which are written once as array_record through TFDS and then read by random access.

A dataset is a frozen dataclass with

- `splits()`, which returns an iterator of examples for each split: dicts of strings or bytes by column;
- `key()`, the folder of the prepared data below the data root; datasets with equal content have equal keys;
- `origin`, optional facts about the data, and `part_sizes`, for a mixture. Both are read after the examples and
  stored with them.
"""

import contextlib
import dataclasses
import glob
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from seqlab.data.codec_files import read_record
from seqlab.system.errors import SeqlabError, with_advice
from seqlab.system.files import atomic_folder, locked
from seqlab.system.progress_bar import progress
from seqlab.system.untrusted import fits, plain_files, read_json

Example = dict[str, Any]  # str or bytes by column

VERSION = "1.1.0"
CHUNK = 1000
PREPARED_RECORD = "prepared.json"
FACTS = {  # the fields of the record and their types
    "counts": dict[str, int],
    "hashes": dict[str, str],
    "origin": dict[str, str],
    "part_sizes": dict[str, list[int]],
    "bytes": list[str],
}


def differing(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Returns the names whose hashes differ."""
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


@runtime_checkable
class Dataset(Protocol):
    def key(self) -> str: ...
    def splits(self) -> dict[str, Iterator[Example]]: ...


class PreparedData(NamedTuple):
    """A prepared dataset: its folder, the number of examples and their SHA-256 for each split, its origin, the sizes
    of the consecutive parts of each split of a mixture, and the columns that contain bytes.
    """

    folder: Path
    counts: dict[str, int]
    hashes: dict[str, str]
    origin: dict[str, str]
    part_sizes: dict[str, list[int]]
    bytes_columns: list[str]

    def size(self, split: str) -> int:
        """Returns the number of examples of a split. Raises `SeqlabError` if there is no such split."""
        if split not in self.counts:
            raise SeqlabError(f"no split {split!r}: the splits are {', '.join(self.counts)}")
        return self.counts[split]

    def changed_since(self, record: Path) -> list[str]:
        """Returns the splits whose content differs from that in `record`, a run's data.json."""
        return [split for split in differing(read_record(record).splits, self.hashes) if split in self.hashes]

    def source(self, split: str) -> Any:
        """Returns random access to a split's records, each a serialized `tf.train.Example`."""
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        # TFDS is not used, since it imports any module that the folder's features.json names.
        files = [p for p in plain_files(self.folder) if p.match(f"seqlab-{glob.escape(split)}.array_record-*")]
        try:
            source = ArrayRecordDataSource([str(path) for path in files]) if files else ()
        except (ValueError, RuntimeError) as error:
            raise self.damaged(split, error) from None
        if len(source) != self.counts[split]:
            raise self.damaged(split, f"{len(source)} examples instead of {self.counts[split]}")
        return source

    def damaged(self, split: str, reason: object) -> SeqlabError:
        reason = str(reason).partition("\n")[0]
        folder = self.folder.parent
        return SeqlabError(f"{folder}: split {split} is damaged ({reason}): remove {folder} and prepare it again")

    def value(self, column: str, content: bytes) -> str | bytes:
        return content if column in self.bytes_columns else content.decode()

    def read(self, split: str, start: int = 0, stop: int | None = None, stride: int = 1) -> Iterator[Example]:
        """Yields every `stride`-th example from `start` to `stop`, in order."""
        # Parsing with TFDS takes 2.5 times as long.
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
        stop = self.size(split) if stop is None else min(stop, self.size(split))
        source = self.source(split)
        indices = range(start, stop, stride)
        for at in range(0, len(indices), CHUNK):  # array_record reads in bulk several times as fast
            try:
                records = [parse(record).features.feature for record in source.__getitems__(indices[at : at + CHUNK])]
                examples = [{n: self.value(n, f[n].bytes_list.value[0]) for n in sorted(f)} for f in records]
            except (ValueError, RuntimeError, IndexError, DecodeError) as error:
                raise self.damaged(split, error) from None
            yield from examples


def generate_splits(dataset: Any) -> dict[str, Iterator[Example]]:
    """Returns the splits of a synthetic dataset, generated by its method `examples`. The fields `train`,
    `validation` and `test` are the sizes.
    """
    splits = ("train", "validation", "test")
    rngs = {name: np.random.default_rng([dataset.seed, i]) for i, name in enumerate(splits)}
    return {name: dataset.examples(rng, getattr(dataset, name)) for name, rng in rngs.items()}


def prepare(dataset: Dataset, root: Path) -> PreparedData:
    """Returns the prepared data of a dataset below `root`, and builds it first if it does not exist.

    An interrupted or failed build leaves no incomplete data; the next build starts over.
    """
    key = Path(root) / dataset.key()
    if not key.resolve().is_relative_to(Path(root).resolve()) or key.resolve() == Path(root).resolve():
        raise SeqlabError(
            f"{dataset.key()!r} is not a valid key of a dataset: a key must name a folder inside the data folder"
        )
    record = key / PREPARED_RECORD
    if not record.exists():
        with locked(key.parent / ".lock"):
            if key.exists() and not record.exists():
                raise SeqlabError(f"{key} exists but is not prepared data: move or delete this folder")
            if not key.exists():  # otherwise another process has built it
                with atomic_folder(key) as part:
                    _build(dataset, part)
    if not (key / VERSION).exists():
        raise SeqlabError(f"{key} was prepared by another version of seqlab: remove it and prepare it again")
    remedy = f"remove {key} and prepare it again"
    with with_advice(remedy):
        facts = {"origin": {}, "part_sizes": {}, "bytes": [], **read_json(record, dict[str, Any])}
    complete = all(fits(facts.get(name), kind) for name, kind in FACTS.items())
    if (
        not complete
        or facts["counts"].keys() != facts["hashes"].keys()
        or min(facts["counts"].values(), default=0) < 1
    ):
        raise SeqlabError(f"{record}: damaged; {remedy}")
    return PreparedData(key / VERSION, *(facts[name] for name in FACTS))


def prepare_split(dataset: Dataset, split: str, root: Path) -> PreparedData:
    """Returns prepared data with a split: all of it, or, where other files of the dataset are gone, this split
    alone. Raises `SeqlabError` if the files of the split are gone.
    """
    try:
        return prepare(dataset, root)
    except SeqlabError:
        if not hasattr(dataset, "only"):
            raise
        return prepare(dataset.only(split), root)  # pyright: ignore[reportAttributeAccessIssue]


def with_absolute_paths(dataset: Any) -> Any:
    """Returns the dataset, in which relative paths are absolute: a run can then be used from any folder."""
    if parts := getattr(dataset, "parts", None):
        return dataclasses.replace(dataset, parts=tuple(map(with_absolute_paths, parts)))
    paths = {name: value for name in getattr(dataset, "path_fields", ()) if (value := getattr(dataset, name))}
    return dataclasses.replace(dataset, **{name: os.path.abspath(path) for name, path in paths.items()})


def _build(dataset: Dataset, folder: Path) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    tfds.disable_progress_bar()
    splits = dataset.splits()
    first = {name: next(examples, None) for name, examples in splits.items()}
    empty = [name for name, example in first.items() if example is None]
    if empty:
        raise SeqlabError(f"{dataset.key()}: no examples in {', '.join(empty)}")
    example = next(iter(first.values())) or {}
    columns, of_bytes = list(example), [name for name, value in example.items() if isinstance(value, bytes)]
    counts = dict.fromkeys(splits, 0)
    digests = {name: hashlib.sha256() for name in splits}

    with progress(f"preparing {dataset.key()}", None) as advance, registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            name = "seqlab"
            VERSION = tfds.core.Version(VERSION)

            def _info(self) -> Any:
                features = tfds.features.FeaturesDict({name: tfds.features.Text() for name in columns})
                # The order is preserved: line n of a test set remains line n.
                return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                return {name: self._generate_examples(name) for name in splits}

            def _generate_examples(self, split: str) -> Iterator[tuple[int, Example]]:
                example = first[split]
                while example is not None:
                    digests[split].update(line_of(example))
                    yield counts[split], example
                    counts[split] += 1
                    advance()
                    example = next(splits[split], None)

        builder = Builder(data_dir=str(folder), file_format="array_record")
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints a message for every build
            try:
                builder.download_and_prepare()
            except RuntimeError as error:  # raised by array_record, for example if the disk is full
                raise SeqlabError(f"{folder}: cannot be written: {str(error).partition(chr(10))[0]}") from None

    # TFDS nests the version below the builder's name, which the key makes redundant.
    (folder / "seqlab" / VERSION).rename(folder / VERSION)
    shutil.rmtree(folder / "seqlab")
    shutil.rmtree(folder / "downloads", ignore_errors=True)
    hashes = {name: digest.hexdigest() for name, digest in digests.items()}
    extra = {name: getattr(dataset, name, {}) for name in ("origin", "part_sizes")}
    facts = {"counts": counts, "hashes": hashes, **extra, "bytes": of_bytes}
    (folder / PREPARED_RECORD).write_text(json.dumps(facts, indent=1))


def line_of(example: Example) -> bytes:
    """Returns an example as a line of JSON, the input of the hash of its split."""
    line = json.dumps(example, ensure_ascii=False, sort_keys=True, default=lambda value: {"bytes": value.hex()})
    return line.encode() + b"\n"
