"""The files of tokenizers in a run: saving, loading and hashing them."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from seqlab.data.tokenizers import Labels, MarianTokenizer, Numbers, Symbols, Tokenizer, Tokenizers
from seqlab.system.errors import RESTORE, SeqlabError, with_advice
from seqlab.system.untrusted import parse_json, read_json, read_whole, resolve_inside

TOKENIZER_FILES = ("tokenizer*.model", "*.names.json", "*.pieces.json")
RUN_RECORD = "data.json"


def tokenizer_hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each tokenizer file in a folder, by name."""
    paths = sorted(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern))
    return {path.name: hashlib.sha256(read_whole(resolve_inside(folder, path.name))).hexdigest() for path in paths}


def save_tokenizers(tokenizers: Tokenizers, folder: Path) -> None:
    """Writes a file for each column, or a single `tokenizer.model` that columns share. Removes other such files."""
    for pattern in TOKENIZER_FILES:
        for old in folder.glob(pattern):
            old.unlink()
    models = {column: t.model for column, t in tokenizers.items() if isinstance(t, Tokenizer | MarianTokenizer)}
    for column, model in models.items():
        shared = len(set(models.values())) == 1
        (folder / ("tokenizer.model" if shared else f"tokenizer.{column}.model")).write_bytes(model)
    for column, tokenizer in tokenizers.items():
        if isinstance(tokenizer, MarianTokenizer):
            fields = {name: value for name, value in dataclasses.asdict(tokenizer).items() if name != "model"}
            (folder / f"{column}.pieces.json").write_text(json.dumps(fields, indent=0))
        elif isinstance(tokenizer, Labels | Symbols):
            (folder / f"{column}.names.json").write_text(json.dumps(tokenizer.names, indent=0))


def load_tokenizers(folder: Path, columns: Mapping[str, str]) -> Tokenizers:
    """Returns the tokenizers that `save_tokenizers` wrote, for columns of the given kinds. Raises `SeqlabError` for a
    missing file, and for a file that differs from the run's record, if it has one.
    """
    record = read_record(folder / RUN_RECORD)[1] if (folder / RUN_RECORD).exists() else {}
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
        path = next((resolve_inside(folder, name) for name in names if (folder / name).exists()), None)
        if path is None:
            raise SeqlabError(f"{folder} has no tokenizer for the column {column!r}; {RESTORE}")
        pieces = resolve_inside(folder, f"{column}.pieces.json")
        with with_advice(RESTORE):
            if kind == "text":
                tokenizers[column] = _load_text_tokenizer(path, pieces)
            else:
                class_names = parse_names(read_whole(path), str(path))
                tokenizers[column] = Labels(class_names) if kind == "class" else Symbols(class_names)
    return tokenizers


def read_record(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the SHA-256 of each split and of each tokenizer file in data.json; old runs have only splits."""
    with with_advice(RESTORE):
        hashes = read_json(resolve_inside(path.parent, path.name), dict[str, str])
    files = {name: hashes[name] for name in hashes if any(map(Path(name).match, TOKENIZER_FILES))}
    return {name: hashes[name] for name in hashes if name not in files}, files


def parse_names(content: bytes, place: str) -> tuple[str, ...]:
    """Returns the names of classes or symbols, from JSON. Errors name the `place`."""
    names = parse_json(content, place, list[str])
    if not names or len(set(names)) < len(names):
        raise SeqlabError(f"{place}: there must be names of classes, and no name twice")
    return tuple(names)


def parse_tokenizer(model: bytes, place: str) -> Tokenizer:
    """Returns the tokenizer of a SentencePiece model. Errors name the `place`."""
    tokenizer = Tokenizer(model)
    _check_model(tokenizer, place)
    return tokenizer


def _load_text_tokenizer(path: Path, pieces: Path) -> Tokenizer | MarianTokenizer:
    model = read_whole(path)
    tokenizer = Tokenizer(model)
    if pieces.exists():
        values = read_json(pieces, dict[str, int | list[str]])
        special = ("pad", "bos", "eos", "unk")
        names = values.get("names")
        if values.keys() != {"names", *special} or not isinstance(names, list):
            raise SeqlabError(f"{pieces}: the keys are names, {', '.join(special)}")
        if not all(isinstance(values[name], int) and 0 <= values[name] < len(names) for name in special):
            raise SeqlabError(f"{pieces}: {', '.join(special)} are numbers of its {len(names)} names")
        tokenizer = MarianTokenizer(model, tuple(names), *(values[name] for name in special))
    _check_model(tokenizer, str(path))
    return tokenizer


def _check_model(tokenizer: Tokenizer | MarianTokenizer, place: str) -> None:
    """Raises for a malformed model. Errors name the `place`."""
    if not tokenizer.model:  # SentencePiece takes nothing for a model
        raise SeqlabError(f"{place} is empty")
    try:
        for i in range(tokenizer.processor.get_piece_size()):
            tokenizer.processor.id_to_piece(i)
    except UnicodeDecodeError as error:
        raise SeqlabError(f"{place}: a piece that is not UTF-8 ({error.reason})") from None
    except SeqlabError as error:
        raise SeqlabError(f"{place}: {error}") from None
