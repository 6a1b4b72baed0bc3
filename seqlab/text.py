"""Strings to ids and back: text files, SentencePiece tokenizers, and the memory-mapped cache of ids."""

import contextlib
import functools
import gzip
import hashlib
import io
import itertools
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from seqlab.config import Text
from seqlab.errors import SeqlabError
from seqlab.files import folder_made_whole, locked
from seqlab.progress import progress

CHUNK = 20_000  # lines tokenized at once


def read_lines(source: Path | Iterable[bytes]) -> Iterator[str]:
    """The lines of a UTF-8 text file (gzipped if its name ends in .gz) or of a stream of lines, without line ends.

    Raises `SeqlabError` naming the file, and the line where there is one, for a file that is missing, not
    gzipped though named so, or not UTF-8.
    """
    name = str(source) if isinstance(source, Path) else "standard input"
    number = 0
    try:
        with _opened(source) as stream:
            for number, line in enumerate(stream, 1):
                text = line.decode("utf-8")
                yield (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SeqlabError(f"{name}:{number}: not UTF-8 ({error.reason} at byte {error.start} of the line)") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SeqlabError(f"{name}: cannot be read after line {number}: {reason}") from None


def _opened(source: Path | Iterable[bytes]) -> contextlib.AbstractContextManager[Any]:
    if not isinstance(source, Path):
        return contextlib.nullcontext(source)
    return gzip.open(source) if source.suffix == ".gz" else source.open("rb")


def read_pairs(source: Path, target: Path) -> Iterator[dict[str, str]]:
    """Parallel files as examples. An empty side and files of unequal length are errors that name the line."""
    pairs = itertools.zip_longest(read_lines(source), read_lines(target))
    for number, (left, right) in enumerate(pairs, 1):
        if left is None or right is None:
            short, long = (source, target) if left is None else (target, source)
            raise SeqlabError(f"{short} ends after line {number - 1}, but {long} goes on: the files are not parallel")
        for path, side in ((source, left), (target, right)):
            if not side.strip():
                raise SeqlabError(f"{path}:{number}: empty line in parallel text")
        yield {"source": left, "target": right}


@dataclass(frozen=True)
class Tokenizer:
    """A SentencePiece model and its special ids."""

    model: bytes
    pad = 0
    bos = 1
    eos = 2
    unk = 3

    @functools.cached_property
    def processor(self) -> Any:
        import sentencepiece

        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError:
            raise SeqlabError("not a SentencePiece model") from None
        found = processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()
        if found != (self.pad, self.bos, self.eos, self.unk):
            raise SeqlabError(f"this SentencePiece model has pad, bos, eos, unk at {found}; 0, 1, 2, 3 are needed")
        return processor

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def __len__(self) -> int:
        return self.processor.get_piece_size()

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Ids without BOS and EOS, on all cores."""
        return self.processor.encode(list(lines), num_threads=os.cpu_count() or 1)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; the special ones are left out. An id outside the vocabulary is an error."""
        special = (self.pad, self.bos, self.eos)
        text = self.processor.decode([i for i in ids if i not in special])
        # A word missing from a vocabulary of words keeps SentencePiece's mark for a blank.
        return text.replace("\u2581", " ").strip()


Tokenizers = dict[str, Tokenizer]  # by column of the data: "source", "target"


def train_tokenizer(lines: Iterable[str], text: Text) -> Tokenizer:
    """SentencePiece with byte fallback, trained on `lines`; the same lines give the same model.

    Text is not normalized: what is decoded is what was encoded, but for runs of blanks and those at the ends.
    """
    import sentencepiece

    if text.kind not in ("bpe", "char", "word"):
        raise SeqlabError(f"unknown tokenizer {text.kind!r}: bpe, char or word")
    if text.size < 300:
        raise SeqlabError(f"a vocabulary of {text.size} is too small: 256 bytes, 4 special tokens and some text")
    output = io.BytesIO()
    with progress(f"training a tokenizer ({text.kind}, {text.size})", None) as advance:

        def counted() -> Iterator[str]:
            for line in lines:
                advance()
                yield line

        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=counted(),
                model_writer=output,
                model_type=text.kind,
                vocab_size=text.size,
                character_coverage=1.0,
                byte_fallback=True,
                normalization_rule_name="identity",
                max_sentence_length=1 << 20,
                hard_vocab_limit=text.kind == "bpe",
                pad_id=Tokenizer.pad,
                bos_id=Tokenizer.bos,
                eos_id=Tokenizer.eos,
                unk_id=Tokenizer.unk,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).rsplit(") ", 1)[-1].strip()
            raise SeqlabError(
                f"no {text.kind} vocabulary of {text.size} entries could be trained: {reason}"
            ) from None
    return Tokenizer(output.getvalue())


def save_tokenizers(tokenizers: Tokenizers, folder: Path) -> None:
    """One file a column, or a single `tokenizer.model` where the columns share it; others are removed."""
    for old in folder.glob("tokenizer*.model"):
        old.unlink()
    for name, model in _tokenizer_files(tokenizers).items():
        (folder / name).write_bytes(model)


def load_tokenizers(folder: Path, columns: Sequence[str]) -> Tokenizers:
    shared = folder / "tokenizer.model"
    if shared.exists():
        return dict.fromkeys(columns, Tokenizer(shared.read_bytes()))
    return {column: Tokenizer((folder / f"tokenizer.{column}.model").read_bytes()) for column in columns}


def _tokenizer_files(tokenizers: Tokenizers) -> dict[str, bytes]:
    models = {tokenizer.model for tokenizer in tokenizers.values()}
    if len(models) == 1:
        return {"tokenizer.model": models.pop()}
    return {f"tokenizer.{column}.model": tokenizer.model for column, tokenizer in tokenizers.items()}


class Corpus(NamedTuple):
    """A tokenized split: for each column all ids in one memory map, and where each example starts."""

    ids: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.offsets.values()))) - 1

    def row(self, column: str, i: int | np.integer) -> np.ndarray:
        return self.ids[column][self.offsets[column][i] : self.offsets[column][i + 1]]

    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 [examples, columns]."""
        return np.stack([np.diff(offsets) for offsets in self.offsets.values()], axis=1)


def tokenize(
    examples: Iterable[dict[str, str]], count: int, content: str, tokenizers: Tokenizers, root: Path
) -> Corpus:
    """The ids of `count` examples, from the cache below `root` or into it.

    `content` names the data: equal content and equal tokenizers give the same cache, and then no text is
    read. Memory is bounded by a chunk of lines. An interrupted run leaves nothing that counts.
    """
    identity = json.dumps([content, {name: t.digest for name, t in sorted(tokenizers.items())}])
    folder = Path(root) / "cache" / hashlib.sha256(identity.encode()).hexdigest()[:24]
    if not folder.exists():
        with locked(folder.parent / ".lock"):
            if not folder.exists():  # otherwise another process was first
                with folder_made_whole(folder) as part:
                    _tokenize_into(part, examples, count, tokenizers)
    ids = {c: _map(folder / f"{c}.ids", np.dtype("<i4")) for c in tokenizers}
    offsets = {c: _map(folder / f"{c}.offsets", np.dtype("<i8")) for c in tokenizers}
    return Corpus(ids, offsets)


def _tokenize_into(folder: Path, examples: Iterable[dict[str, str]], count: int, tokenizers: Tokenizers) -> None:
    files = {c: ((folder / f"{c}.ids").open("wb"), (folder / f"{c}.offsets").open("wb")) for c in tokenizers}
    ends = dict.fromkeys(tokenizers, 0)
    remaining = iter(examples)
    try:
        for _, offsets in files.values():
            offsets.write(np.zeros(1, "<i8").tobytes())
        with progress("tokenizing", count) as advance:
            while chunk := list(itertools.islice(remaining, CHUNK)):
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


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[TextIO]:
    """A text stream to a file (gzipped if its name ends in .gz) or to standard output.

    The file appears, whole, when the block ends; an error in between leaves what was there before.
    """
    if path is None:
        yield sys.stdout
        return
    if path.exists() and not path.is_file():  # a device or a pipe; a folder is an error
        with path.open("w", encoding="utf-8") as stream:
            yield stream
        return
    path = path.resolve()
    part = path.with_name(path.name + ".part")
    try:
        zipped = path.suffix == ".gz"
        with gzip.open(part, "wt", encoding="utf-8") if zipped else part.open("w", encoding="utf-8") as stream:
            yield stream
        part.rename(path)
    except OSError as error:
        raise SeqlabError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
