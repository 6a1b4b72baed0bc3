"""Strings to ids and back: text files, SentencePiece tokenizers, and the memory-mapped cache of ids."""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from seqlab.config import Text
from seqlab.errors import RESTORE, SeqlabError, Stopped, advised
from seqlab.files import folder_made_once
from seqlab.progress import progress
from seqlab.untrusted import inside, parse_json, read_json, read_whole

CHUNK = 5_000  # examples tokenized at once
CACHED = {"ids": "<i4", "offsets": "<i8"}  # the files of a column in the cache, and the type of their numbers

LONGEST_LINE = 1 << 20  # bytes
MAGIC = {  # what no text begins with
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\x00",
    "Zstandard": b"\x28\xb5\x2f\xfd",
    "zip": b"PK\x03\x04",
    "UTF-16": (b"\xff\xfe", b"\xfe\xff"),
}

# What was mended, by kind, where a reader is to mend ("replace"); None where it is to raise ("strict").
Repairs = Counter[str] | None


def read_lines(source: Path | BinaryIO | io.BufferedIOBase, repairs: Repairs = None) -> Iterator[str]:
    """The lines of a UTF-8 text file (gzipped if its name ends in .gz) or of a binary stream.

    Line ends (\\n or \\r\\n) and a byte-order mark at the beginning are taken off. Raises `SeqlabError` naming
    the file, and the line where there is one, for a file that is missing or of another compression than its
    name says, and for a line that is not UTF-8, holds a NUL, or is longer than a megabyte. With `repairs` such
    a line is mended, and counted there: U+FFFD for bad bytes, NULs left out, the rest of a long line cut off.
    """
    name = str(source) if isinstance(source, Path) else "standard input"
    number = 0
    try:
        with _opened(source) as stream:
            for number, (line, cut) in enumerate(_bounded(stream), 1):
                packed = number == 1 and next((kind for kind, magic in MAGIC.items() if line.startswith(magic)), None)
                if packed:
                    hint = (
                        ", and its name does not end in .gz" if packed == "gzip" else ": make it plain UTF-8, or .gz"
                    )
                    raise SeqlabError(f"{name}: this is {packed}{hint}")
                text = _decoded(line, cut, f"{name}:{number}", repairs)
                yield (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        where = f" after line {number}" if number else ""
        raise SeqlabError(f"{name}: cannot be read{where}: {reason}") from None


def _opened(source: Path | BinaryIO | io.BufferedIOBase) -> contextlib.AbstractContextManager[Any]:
    if not isinstance(source, Path):
        return contextlib.nullcontext(source)
    return gzip.open(source) if source.suffix == ".gz" else source.open("rb")


def _bounded(stream: Any) -> Iterator[tuple[bytes, int]]:
    """Lines of at most a megabyte, and how many bytes more each had: no line is ever held that is longer."""
    for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
        cut = 0
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            rest = iter(lambda: stream.readline(LONGEST_LINE), b"")
            for part in rest:
                cut += len(part)
                if part.endswith(b"\n"):
                    break
        yield line, cut


def _decoded(line: bytes, cut: int, place: str, repairs: Repairs) -> str:
    if cut:
        _mend(repairs, "cut at a megabyte", f"{place}: a line of {len(line) + cut:,} bytes")
        # A character of several bytes that the cut may have split: its first byte is one of the last four.
        last = next((n for n in range(1, 5) if not 0x80 <= line[-n] < 0xC0), 0)
        line = line[:-last] if last and line[-last] >= 0xC0 else line
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        _mend(repairs, "not UTF-8", f"{place}: not UTF-8 ({error.reason} at byte {error.start} of the line)")
        text = line.decode("utf-8", errors="replace")
    if "\0" in text:
        _mend(repairs, "NUL", f"{place}: a NUL character")
        text = text.replace("\0", "")
    return text


def _mend(repairs: Repairs, kind: str, message: str) -> None:
    """Counts a repair, or raises."""
    if repairs is None:
        raise SeqlabError(message)
    repairs[kind] += 1


def repairs_of(errors: str) -> Repairs:
    """What a data set's field `errors` asks of the readers: "strict" or "replace"."""
    if errors not in ("strict", "replace"):
        raise SeqlabError(f"errors must be 'strict' or 'replace', not {errors!r}")
    return Counter() if errors == "replace" else None


def repairs_told(repairs: Repairs) -> dict[str, str]:
    """What was mended, for a data set's `origin`."""
    return {f"lines mended ({kind})": str(count) for kind, count in (repairs or {}).items()}


def read_pairs(source: Path, target: Path, repairs: Repairs = None) -> Iterator[dict[str, str]]:
    """Parallel files as examples. Files of unequal length are an error that names the line; so is an empty side,
    whose pair is left out and counted with `repairs`. Raises if no pair is left.
    """
    found = False
    pairs = itertools.zip_longest(read_lines(source, repairs), read_lines(target, repairs))
    for number, (left, right) in enumerate(pairs, 1):
        if left is None or right is None:
            short, long = (source, target) if left is None else (target, source)
            raise SeqlabError(f"{short} ends after line {number - 1}, but {long} goes on: the files are not parallel")
        empty = next((path for path, side in ((source, left), (target, right)) if not side.strip()), None)
        if empty is not None:
            _mend(repairs, "left out, empty", f"{empty}:{number}: empty line in parallel text")
        else:
            found = True
            yield {"source": left, "target": right}
    if not found:
        raise SeqlabError(f"{source} and {target}: no pair of lines")


def read_table(path: Path, columns: dict[str, str], repairs: Repairs = None) -> Iterator[dict[str, str]]:
    """Examples with the keys of `columns` from the columns it names, of a .tsv, .jsonl or .txt file, or one of
    these with .gz behind.

    A .tsv begins with a line of names and knows no quotes; a .jsonl has an object a line; a .txt has one column,
    of any name. Raises with file and line for a column that is missing, a row of another width than the first, a
    line that is no object, and a value that is empty or no text; with `repairs` that line is left out and counted.
    Raises if no example is left.
    """
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in (".tsv", ".jsonl", ".txt"):
        raise SeqlabError(f"{path}: a table is a .tsv, .jsonl or .txt file, or one of these with .gz behind")
    if kind == ".txt" and len(columns) != 1:
        raise SeqlabError(f"{path}: a text file has one column, and {', '.join(columns)} are asked of it")
    lines = enumerate(read_lines(path, repairs), 1)
    names: list[str] = []
    if kind == ".tsv":
        names = next(lines, (1, ""))[1].split("\t")
        twice = next((name for name in columns.values() if names.count(name) > 1), None)
        if names == [""] or twice is not None:
            raise SeqlabError(
                f"{path}:1: " + (f"the column {twice!r} stands twice" if twice else "no names of columns")
            )
        missing = [name for name in columns.values() if name not in names]
        if missing:
            raise SeqlabError(f"{path}:1: no column {missing[0]!r}: there are {', '.join(map(repr, names))}")
    found = False
    for number, line in lines:
        if kind == ".txt":
            found = True
            yield dict.fromkeys(columns, line)
            continue
        row, reason = _fields(line, names) if kind == ".tsv" else _object(line)
        absent = next((name for name in columns.values() if reason is None and name not in row), None)
        if absent is not None:
            reason = f"no column {absent!r}"
        example = {ours: row.get(theirs) for ours, theirs in columns.items()}
        for ours, value in example.items():
            plain = isinstance(value, str | int | float) and not isinstance(value, bool)
            if reason is None and not (plain and str(value).strip() not in ("", "inf", "-inf")):
                reason = f"{columns[ours]!r} is empty or no text"
            if reason is None and re.search("[\0\ud800-\udfff]", str(value)):
                reason = f"{columns[ours]!r} has a NUL, or half of a surrogate pair"
        if reason is None:
            found = True
            yield {ours: str(value) for ours, value in example.items()}
        else:
            _mend(repairs, "left out, broken", f"{path}:{number}: {reason}")
    if not found:
        raise SeqlabError(f"{path}: no examples")


def _fields(line: str, names: list[str]) -> tuple[dict[str, Any], str | None]:
    values = line.split("\t")
    if len(values) != len(names):
        return {}, f"{len(values)} columns where the first line has {len(names)}"
    return dict(zip(names, values, strict=True)), None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _object(line: str) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return {}, f"broken JSON: {error}"
    return (value, None) if isinstance(value, dict) else ({}, "no JSON object")


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
        if processor.piece_to_id("<0x0A>") == self.unk:
            raise SeqlabError("this SentencePiece model has no byte fallback, which is needed")
        if found != (self.pad, self.bos, self.eos, self.unk):
            raise SeqlabError(f"this SentencePiece model has pad, bos, eos, unk at {found}; 0, 1, 2, 3 are needed")
        return processor

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def __len__(self) -> int:
        return self.processor.get_piece_size()

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(map(self.processor.id_to_piece, range(len(self))))

    @functools.cached_property
    def newline(self) -> int:
        """The id that stands between the lines of a text: the byte of that number."""
        return self.processor.piece_to_id("<0x0A>")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without BOS and EOS, on all cores. The lines of a text are encoded each for itself."""
        parts = [text.split("\n") for text in texts]
        lines = [line for part in parts for line in part]
        rows = iter(self.processor.encode(lines, num_threads=os.cpu_count() or 1))
        found = []
        for part in parts:
            ids = next(rows)
            for _ in part[1:]:
                ids.append(self.newline)
                ids.extend(next(rows))
            found.append(ids)
        return found

    def piece(self, token: int) -> str:
        """A token as the tokenizer writes it, "\u2581" for a blank before it."""
        return self.processor.id_to_piece(int(token))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; the special ones are left out. An id outside the vocabulary is an error."""
        lines: list[list[int]] = [[]]
        for i in ids:
            if i == self.newline:
                lines.append([])
            elif i not in (self.pad, self.bos, self.eos):
                lines[-1].append(i)
        # A word missing from a vocabulary of words keeps SentencePiece's mark for a blank.
        return "\n".join(
            text.removeprefix("\u2581").replace("\u2581", " ") for text in self.processor.decode(lines)
        ).strip()


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece model whose pieces have numbers of another vocabulary, and special ids of its own: Marian's."""

    model: bytes
    names: tuple[str, ...]
    pad: int
    bos: int
    eos: int
    unk: int
    newline = -1  # lines of a text are not told apart

    @functools.cached_property
    def processor(self) -> Any:
        import sentencepiece

        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError:
            raise SeqlabError("not a SentencePiece model") from None

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.model + "\n".join(self.names).encode()).hexdigest()

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without BOS and EOS."""
        lines = [text.replace("\n", " ") for text in texts]
        rows = self.processor.encode(lines, out_type=str, num_threads=os.cpu_count() or 1)
        return [[self.numbers.get(piece, self.unk) for piece in row] for row in rows]

    def piece(self, token: int) -> str:
        return self.names[token]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; the special ones are left out."""
        pieces = [self.names[i] for i in ids if i not in (self.pad, self.bos, self.eos)]
        return self.processor.decode_pieces(pieces).replace("\u2581", " ").strip()


@dataclass(frozen=True)
class Labels:
    """The classes of a data set, by name: a tokenizer whose every text is one id."""

    names: tuple[str, ...]

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Raises `SeqlabError` for a label that the training data does not have."""
        ids = {name: i for i, name in enumerate(self.names)}
        unknown = next((text for text in texts if text not in ids), None)
        if unknown is not None:
            raise SeqlabError(f"the label {unknown!r} is none of the {len(ids)} that training knows")
        return [[ids[text]] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return self.names[ids[0]]


@dataclass(frozen=True)
class Symbols:
    """Words of a small, closed set, by name: a tokenizer that gives each word of a text one id."""

    names: tuple[str, ...]

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(" ".join(self.names).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Raises `SeqlabError` for a symbol that the training data does not have."""
        ids = {name: i for i, name in enumerate(self.names)}
        try:
            return [[ids[name] for name in text.split()] for text in texts]
        except KeyError as error:
            raise SeqlabError(f"the symbol {error} is none of the {len(ids)} that training knows") from None

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.names[i] for i in ids)


@dataclass(frozen=True)
class Numbers:
    """Numbers, apart by blanks or newlines: an id is the bit pattern of a float32."""

    digest = "float32"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Raises `SeqlabError` for a text that is not made of finite numbers."""
        found = []
        for text in texts:
            try:
                values = np.array(text.split(), np.float64)
            except ValueError:
                values = np.array([np.nan])
            if not (np.abs(values) < np.finfo(np.float32).max).all():
                raise SeqlabError(f"these are no numbers: {text[:40]!r}")
            found.append(values.astype(np.float32).view(np.int32).tolist())
        return found

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(value) for value in values_of(ids))


def values_of(ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """The float32 numbers behind ids of `Numbers`."""
    return np.asarray(ids, np.int32).view(np.float32)


TextTokenizer = Tokenizer | Pieces
Tokenizers = dict[str, Any]  # by column of the data ("source", "target", "label"): one of those above


def train_tokenizer(texts: Iterable[str], text: Text) -> Tokenizer:
    """SentencePiece with byte fallback, trained on `texts`; the same texts give the same model.

    Text is not normalized: what is decoded is what was encoded, but for runs of blanks and those at the ends of
    lines; with characters every one of them is a token.
    """
    import sentencepiece

    if text.kind not in ("bpe", "char", "word"):
        raise SeqlabError(f"unknown tokenizer {text.kind!r}: bpe, char or word")
    if text.size < 300:
        raise SeqlabError(f"a vocabulary of {text.size} is too small: 256 bytes, 4 special tokens and some text")
    output = io.BytesIO()
    with progress(f"training a tokenizer ({text.kind}, {text.size})", None) as advance:
        raised: list[BaseException] = []  # in the texts: the trainer would make a line of its own of it

        def counted() -> Iterator[str]:
            try:
                for one in texts:
                    advance()
                    yield from one.split("\n")
            except (Exception, KeyboardInterrupt, Stopped) as error:
                raised.append(error)
                raise

        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=counted(),
                model_writer=output,
                model_type=text.kind,
                vocab_size=text.size,
                character_coverage=1.0,
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=text.kind != "char",
                remove_extra_whitespaces=text.kind != "char",
                max_sentence_length=1 << 20,
                hard_vocab_limit=text.kind == "bpe",
                pad_id=Tokenizer.pad,
                bos_id=Tokenizer.bos,
                eos_id=Tokenizer.eos,
                unk_id=Tokenizer.unk,
                minloglevel=2,
            )
        except RuntimeError as error:
            if raised:
                raise raised[0] from None
            reason = str(error).rsplit(") ", 1)[-1].strip()
            raise SeqlabError(
                f"no {text.kind} vocabulary of {text.size} entries could be trained: {reason}"
            ) from None
    return Tokenizer(output.getvalue())


TOKENIZER_FILES = ("tokenizer*.model", "*.names.json", "*.pieces.json")


def tokenizer_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of tokenizers in a folder, by name."""
    found = sorted(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern))
    return {path.name: hashlib.sha256(read_whole(inside(folder, path.name))).hexdigest() for path in found}


def save_tokenizers(tokenizers: Tokenizers, folder: Path) -> None:
    """One file a column, or a single `tokenizer.model` where columns share it; others are removed."""
    for pattern in TOKENIZER_FILES:
        for old in folder.glob(pattern):
            old.unlink()
    models = {column: t.model for column, t in tokenizers.items() if isinstance(t, Tokenizer | Pieces)}
    for column, model in models.items():
        shared = len(set(models.values())) == 1
        (folder / ("tokenizer.model" if shared else f"tokenizer.{column}.model")).write_bytes(model)
    for column, tokenizer in tokenizers.items():
        if isinstance(tokenizer, Pieces):
            known = {name: value for name, value in dataclasses.asdict(tokenizer).items() if name != "model"}
            (folder / f"{column}.pieces.json").write_text(json.dumps(known, indent=0))
        elif isinstance(tokenizer, Labels | Symbols):
            (folder / f"{column}.names.json").write_text(json.dumps(tokenizer.names, indent=0))


def load_tokenizers(folder: Path, columns: Mapping[str, str]) -> Tokenizers:
    """Those that `save_tokenizers` wrote, for columns of given kinds. Raises `SeqlabError` where one is missing, or
    is another than the run's record says, if it says any.
    """
    record = read_record(folder / RECORD)[1] if (folder / RECORD).exists() else {}
    held = tokenizer_hashes(folder) if record else {}
    changed = [name for name in {**record, **held} if record.get(name) != held.get(name)]
    if changed:
        raise SeqlabError(f"{folder / changed[0]}: not what the run was trained with; {RESTORE}")
    tokenizers: Tokenizers = {}
    for column, kind in columns.items():
        if kind == "numbers":
            tokenizers[column] = Numbers()
            continue
        names = [f"tokenizer.{column}.model", "tokenizer.model"] if kind == "text" else [f"{column}.names.json"]
        path = next((inside(folder, name) for name in names if (folder / name).exists()), None)
        if path is None:
            raise SeqlabError(f"{folder} has no tokenizer for the column {column!r}")
        pieces = inside(folder, f"{column}.pieces.json")
        with advised(RESTORE):
            if kind == "text":
                tokenizers[column] = _load_text_tokenizer(path, pieces)
            else:
                known = parse_names(read_whole(path), str(path))
                tokenizers[column] = Labels(known) if kind == "class" else Symbols(known)
    return tokenizers


RECORD = "data.json"


def read_record(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What a run's data.json keeps: the SHA-256 of each split, and of each file of tokenizers; of older runs none."""
    with advised(RESTORE):
        known = read_json(inside(path.parent, path.name), dict[str, str])
    files = {name: known[name] for name in known if any(map(Path(name).match, TOKENIZER_FILES))}
    return {name: known[name] for name in known if name not in files}, files


def parse_names(content: bytes, place: str) -> tuple[str, ...]:
    """The names of classes or symbols, from JSON. Raises naming the `place`."""
    names = parse_json(content, place, list[str])
    if not names or len(set(names)) < len(names):
        raise SeqlabError(f"{place}: names of classes are one or more, and each is another")
    return tuple(names)


def parse_tokenizer(model: bytes, place: str) -> Tokenizer:
    """The tokenizer of a SentencePiece model. Raises naming the `place`."""
    tokenizer = Tokenizer(model)
    _check_model(tokenizer, place)
    return tokenizer


def _load_text_tokenizer(path: Path, pieces: Path) -> Tokenizer | Pieces:
    model = read_whole(path)
    tokenizer = Tokenizer(model)
    if pieces.exists():
        known = read_json(pieces, dict[str, int | list[str]])
        special = ("pad", "bos", "eos", "unk")
        names = known.get("names")
        if known.keys() != {"names", *special} or not isinstance(names, list):
            raise SeqlabError(f"{pieces}: the keys are names, {', '.join(special)}")
        if not all(isinstance(known[name], int) and 0 <= known[name] < len(names) for name in special):
            raise SeqlabError(f"{pieces}: {', '.join(special)} are numbers of its {len(names)} names")
        tokenizer = Pieces(model, tuple(names), *(known[name] for name in special))
    _check_model(tokenizer, str(path))
    return tokenizer


def _check_model(tokenizer: Tokenizer | Pieces, place: str) -> None:
    """Raises for what is wrong with a model, naming the `place`, which is known here."""
    if not tokenizer.model:  # SentencePiece takes nothing for a model
        raise SeqlabError(f"{place} is empty")
    try:
        for i in range(tokenizer.processor.get_piece_size()):
            tokenizer.processor.id_to_piece(i)
    except UnicodeDecodeError as error:
        raise SeqlabError(f"{place}: a piece that is not UTF-8 ({error.reason})") from None
    except SeqlabError as error:
        raise SeqlabError(f"{place}: {error}") from None


@dataclass(frozen=True)
class Corpus:
    """A tokenized split: for each column all ids in one memory map, and where each example starts.

    `parts`: of a mixture, the sizes of its parts, which come one behind the other, and their rates. `folder`: where
    what is derived from the ids may be kept. `sizes`: of the vocabularies, by column; numbers have none.
    """

    ids: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]
    parts: tuple[tuple[int, float], ...] = ()
    folder: Path | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.offsets.values()))) - 1

    def row(self, column: str, i: int | np.integer) -> np.ndarray:
        return self.known(column, self.ids[column][self.offsets[column][i] : self.offsets[column][i + 1]])

    def known(self, column: str, ids: np.ndarray) -> np.ndarray:
        """The ids themselves. Raises `SeqlabError` for one outside the vocabulary, as a damaged cache has."""
        # Without a sign, an id below 0 is a large one.
        if column in self.sizes and (ids.view(np.uint32) >= self.sizes[column]).any():
            raise SeqlabError(f"{column}.ids: an id outside the vocabulary of {self.sizes[column]:,}")
        return ids

    def lengths(self, *columns: str) -> np.ndarray:
        """Tokens of each example, int64 [examples, columns]."""
        return np.stack([np.diff(self.offsets[column]) for column in columns], axis=1)


def tokenize(
    examples: Iterable[dict[str, str]],
    count: int,
    content: str,
    tokenizers: Tokenizers,
    root: Path,
) -> Corpus:
    """The ids of `count` examples, from the cache below `root` or into it.

    `content` names the data: equal content and equal tokenizers give the same cache, and then no text is
    read. Memory is bounded by a chunk of lines. An interrupted run leaves nothing that counts.
    """
    identity = json.dumps([content, {name: t.digest for name, t in sorted(tokenizers.items())}])
    folder = Path(root) / "cache" / hashlib.sha256(identity.encode()).hexdigest()[:24]
    folder_made_once(folder, lambda part: _tokenize_into(part, examples, count, tokenizers))
    ids, offsets = ({c: mapped(folder / f"{c}.{end}", kind) for c in tokenizers} for end, kind in CACHED.items())
    for column, at in offsets.items():
        if len(at) != count + 1 or at[0] != 0 or at[-1] != len(ids[column]) or (np.diff(at) < 0).any():
            raise damaged_cache(folder / f"{column}.offsets")
    sizes = {name: len(one) for name, one in tokenizers.items() if not isinstance(one, Numbers)}
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


def mapped(path: Path, dtype: str) -> np.ndarray:
    """The numbers of a cached file, in a memory map. Raises for a file that is missing or of a broken size."""
    if not path.is_file() or path.stat().st_size % np.dtype(dtype).itemsize:
        raise damaged_cache(path)
    # As a plain array: a slice of a np.memmap takes several times as long.
    return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.zeros(0, dtype)


def damaged_cache(path: Path) -> SeqlabError:
    return SeqlabError(f"{path}: damaged; remove {path.parent}, and it is made again")


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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        zipped = path.suffix == ".gz"
        with gzip.open(part, "wt", encoding="utf-8") if zipped else part.open("w", encoding="utf-8") as stream:
            yield stream
        part.rename(path)
    except OSError as error:
        raise SeqlabError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
