"""Fuzzing of every reader with malformed and hostile input: each input must be read, or refused in one line that
names the file.

    python -m tests.fuzz 10000 [SEED]

writes valid inputs, corrupts every second one, reads each in a separate folder, and prints the counts as a table.
Any result other than valid data or a `SeqlabError` is a fault: it is reported, and its folder is stored in `faults/`.
"""

import contextlib
import dataclasses
import functools
import gzip
import io
import json
import math
import os
import random
import shutil
import signal
import string
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqlab import catalogue
from seqlab.codecs.codec import Codecs
from seqlab.codecs.label import Label
from seqlab.codecs.marian import Marian
from seqlab.codecs.sentencepiece import SentencePiece, train_sentencepiece
from seqlab.codecs.symbols import Symbols
from seqlab.config import Batching, Text
from seqlab.data.batches import make_batch
from seqlab.data.codec_files import load_codecs, save_codecs
from seqlab.data.corpus import Corpus, encode_examples
from seqlab.data.records import prepare
from seqlab.data.text_files import make_repairs, read_lines, read_pairs, read_table
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.datasets.tfds import Tfds
from seqlab.decoding.resumed_output import resumed_output
from seqlab.interop.marian import export_marian, import_marian
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import checkpoint, manifest, saving
from seqlab.runs.loading import load
from seqlab.runs.log import read_log
from seqlab.system.errors import SeqlabError
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.tasks.translation import Translation
from tests.command import save_untrained

SECONDS = 10.0  # more than any reader needs: a reader that takes longer hangs


class Reader(NamedTuple):
    """A reader to test.

    `write` writes a valid input into a folder, and `read` reads it. `seal` updates the checksums after a change, as
    an attacker would. `share` is the relative number of inputs. `named`: the user names the files, which may
    therefore be pipes and devices, and reading waits for them.
    """

    name: str
    write: Callable[[random.Random, Path], None]
    read: Callable[[Path], Any]
    seal: Callable[[Path], None] = lambda folder: None
    share: float = 1.0
    named: bool = False


# Valid inputs


def words(r: random.Random, least: int = 1, most: int = 8) -> str:
    letters = string.ascii_letters + "äöüß東京🙂'\u0301\u200f,.;"
    return " ".join("".join(r.choices(letters, k=r.randint(1, 9))) for _ in range(r.randint(least, most)))


def put(r: random.Random, path: Path, text: str) -> None:
    """Writes a text file, sometimes gzipped, with a byte-order mark, or with the line ends of other systems."""
    content = text.replace("\n", r.choice(["\n", "\n", "\r\n"])).encode()
    content = r.choice([b"", b"", b"\xef\xbb\xbf"]) + content
    if r.random() < 0.3:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, mtime=0))
    else:
        path.write_bytes(content)


def there(folder: Path, name: str) -> Path:
    """Returns the path of a file or of its gzipped form."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if os.path.lexists(p)), folder / name)


def write_lines(r: random.Random, folder: Path) -> None:
    put(r, folder / "text", "".join(words(r, 0) + "\n" for _ in range(r.randint(0, 12))))


def read_text(folder: Path) -> None:
    for repairs in (make_repairs("replace"), None):
        with contextlib.suppress(SeqlabError) if repairs is not None else contextlib.nullcontext():
            lines = list(read_lines(there(folder, "text"), repairs))
            assert not any("\n" in line or "\0" in line for line in lines)


def write_pairs(r: random.Random, folder: Path) -> None:
    count = r.randint(1, 9)
    for name in ("a", "b"):
        put(r, folder / name, "".join(words(r) + "\n" for _ in range(count)))


def read_parallel(folder: Path) -> None:
    paths = there(folder, "a"), there(folder, "b")
    with contextlib.suppress(SeqlabError):
        list(read_pairs(*paths, make_repairs("replace")))
    assert all(pair["source"].strip() and pair["target"].strip() for pair in read_pairs(*paths))


def write_table(kind: str) -> Callable[[random.Random, Path], None]:
    def write(r: random.Random, folder: Path) -> None:
        rows = [{"en": words(r), "de": words(r), "n": r.choice([3, 2.5, "x"])} for _ in range(r.randint(1, 9))]
        if kind == "jsonl":
            lines = [json.dumps(row, ensure_ascii=r.random() < 0.5) for row in rows]
        else:
            lines = ["en\tde\tn", *("\t".join(map(str, row.values())) for row in rows)]
        put(r, folder / f"table.{kind}", "\n".join(lines) + r.choice(["\n", ""]))

    return write


def read_columns(kind: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        path = there(folder, f"table.{kind}")
        with contextlib.suppress(SeqlabError):
            list(read_table(path, {"source": "en", "label": "n"}, make_repairs("replace")))
        for example in read_table(path, {"source": "en", "label": "n"}):
            assert all(isinstance(value, str) and value.encode().strip() for value in example.values())

    return read


BATCHING = Batching(tokens=60, buckets=3, max_length=10)
PLANNED = {"pairs": Translation(), "packed": LanguageModeling("packed"), "stream": LanguageModeling("stream")}


def all_batches(kind: str, corpus: Corpus, codecs: Codecs) -> None:
    """Makes every batch of two epochs, and of one pass over all examples in order."""
    plan = PLANNED[kind].plan(corpus, BATCHING)
    for epoch in (0, 1, None):
        for batch_plan in plan.batches(3, epoch):
            assert sum(batch_plan.shape) * batch_plan.row_count <= max(BATCHING.tokens, sum(batch_plan.shape))
            batch = make_batch(PLANNED[kind], corpus, codecs, batch_plan)
            assert batch.weights.any()
            assert 0 <= batch.targets.min() <= batch.targets.max() < codecs["target"].size


def cached(folder: Path, examples: list[dict[str, str]]) -> None:
    codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
    corpus = encode_examples(examples, 7, "content", codecs, folder)
    for column, values in corpus.values.items():
        assert sum(len(corpus.row(column, i)) for i in range(7)) == len(values)
    for kind in PLANNED:
        all_batches(kind, corpus, codecs)


def write_cache(r: random.Random, folder: Path) -> None:
    names = ("source", "target")
    cached(folder, [{name: "".join(r.choices("abcd", k=r.randint(0, 7))) for name in names} for _ in range(7)])


def read_cache(folder: Path) -> None:
    cached(folder, [{"source": "a", "target": "b"}] * 7)


OFFSETS = np.insert(np.random.default_rng(0).integers(0, 11, size=(2, 40)).cumsum(axis=1), 0, 0, axis=1)


def batches_in(folder: Path) -> None:
    """Makes the batches of the kind that the folder is named after, with ids that are not stored."""
    columns = dict(zip(("source", "target"), OFFSETS, strict=True))
    ids = {name: np.zeros(at[-1], np.int32) for name, at in columns.items()}
    parts = ((30, 0.4), (10, 0.6)) if folder.name == "pairs" else ()
    all_batches(
        folder.name,
        Corpus(ids, columns, parts=parts, folder=folder),
        dict.fromkeys(("source", "target"), tiny_tokenizer()),
    )


def write_plan(r: random.Random, folder: Path) -> None:
    batches_in(folder / r.choice(["pairs", "packed"]))


def read_plan(folder: Path) -> None:
    batches_in(next(path for path in folder.iterdir() if not path.name.startswith(".")))


@functools.cache
def model(kind: str) -> bytes:
    if kind == "unigram":  # with a normalizer, as in models from other toolkits
        return normalizing_model()
    texts = ["ein Hund läuft", "zwei Hunde laufen über die Wiese", "und noch ein Satz, mit Komma."] * 30
    return tiny_tokenizer().model if kind == "tiny" else train_sentencepiece(texts, Text(kind, 300)).model


def normalizing_model() -> bytes:
    import sentencepiece

    output = io.BytesIO()
    texts = iter(["ein Hund läuft", "zwei Hunde laufen über die Wiese"] * 30)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=output, vocab_size=30, hard_vocab_limit=False, minloglevel=2
    )
    return output.getvalue()


def write_tokenizer(r: random.Random, folder: Path) -> None:
    save_codecs({"target": SentencePiece(model(r.choice(["tiny", "bpe"])))}, folder)


def read_tokenizer(folder: Path) -> None:
    tokenizer = load_codecs(folder, {"target": SentencePiece()})["target"]
    (ids,) = tokenizer.encode(["zwei Hunde\nläuft 東京 ½"])
    assert tokenizer.decode(ids).encode() is not None
    assert all(0 <= i < tokenizer.size for i in [*ids, tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.unk])


def write_pieces(r: random.Random, folder: Path) -> None:
    names = ("</s>", "<unk>", "▁", "▁Hund", "e", "n", "<pad>", *(f"n{i}" for i in range(r.randint(0, 5))))
    save_codecs({"target": Marian(model("unigram"), names, 6, 6, 0, 1)}, folder)


def write_names(r: random.Random, folder: Path) -> None:
    names = tuple(sorted({words(r, 1, 1) for _ in range(r.randint(1, 9))}))
    save_codecs({"label": Label(names), "symbols": Symbols(names)}, folder)


def read_names(folder: Path) -> None:
    for tokenizer in load_codecs(folder, {"label": Label(), "symbols": Symbols()}).values():
        assert tokenizer.digest
        assert all(tokenizer.decode([i]) == name for i, name in enumerate(tokenizer.names))


def write_experiment(r: random.Random, folder: Path) -> None:
    kinds = {name: catalogue.part_class("tasks", name) for name in catalogue.names("tasks")}
    task = kinds[r.choice(sorted(kinds))]
    models = [catalogue.module("models", name) for name in catalogue.names("models")]
    chosen = r.choice([module for module in models if isinstance(module.TINY, task.model)]).TINY
    data = catalogue.part_class("datasets", r.choice(catalogue.names("datasets")))()
    changed = {"model": chosen, "task": task(), "data": data, "steps": r.randint(1, 1 << 30), "seed": r.randint(0, 9)}
    catalogue.save_experiment(dataclasses.replace(tiny_experiment(), **changed), folder / "experiment.json")


def read_experiment(folder: Path) -> None:
    experiment = catalogue.load_experiment(folder / "experiment.json")
    assert hash(experiment.model) is not None
    assert json.dumps(catalogue.to_json(experiment)).encode()
    for holder in (experiment, experiment.model, experiment.search, experiment.batching):
        plain = {field.name: field.type for field in dataclasses.fields(holder) if field.type in (int, str, bool)}
        assert all(type(getattr(holder, name)) is kind for name, kind in plain.items())


def write_log(r: random.Random, folder: Path) -> None:
    lines = [{"step": i + 1, "loss": r.random(), "validation bleu": r.choice([r.random(), 1e300])} for i in range(6)]
    end = r.choice(["", '{"step": 7, "lo'])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


def read_metrics(folder: Path) -> None:
    assert all(line["step"] * 1.0 < math.inf and all(v != "" for v in line.values()) for line in read_log(folder))


IDENTITY = {"input": "abc", "search": {"beam": 5, "forbid": ["x"]}, "shard": "1/1", "format": [0, False, None]}


def write_resumed(r: random.Random, folder: Path) -> None:
    with resumed_output(folder / "out.txt", IDENTITY, 2) as (stream, _):
        stream.write("".join(words(r) + "\n" for _ in range(r.randint(0, 7))) + r.choice(["", "half a li"]))


def read_resumed(folder: Path) -> None:
    with resumed_output(folder / "out.txt", IDENTITY, 2) as (stream, done):
        stream.write("one\ntwo\n")
    assert (folder / "out.txt").read_bytes().count(b"\n") == 2 * done + 2


def write_manifest(r: random.Random, folder: Path) -> None:
    steps = sorted(r.sample(range(1, 1000), r.randint(1, 3)))
    for step in steps:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
        progress = {"epoch": r.randint(0, 9), "index": 3, "best": r.random(), "best_step": r.choice([None, *steps])}
        manifest.write_manifest(folder, step, progress, {"a": "0" * 64})


def read_steps(folder: Path) -> None:
    for which in ("last", "best"):
        step = manifest.choose_step(folder, which)
        assert manifest.read_manifest(folder, step)["step"] == step in manifest.checkpoint_steps(folder)


@functools.cache
def store() -> Path:
    """Returns the folder of inputs that are slow to make. Each is made once and copied."""
    folder = tempfile.TemporaryDirectory()
    KEPT.append(folder)
    return Path(folder.name)


KEPT: list[tempfile.TemporaryDirectory] = []


def copied(make: Callable[[int, Path], None], variants: int) -> Callable[[random.Random, Path], None]:
    def write(r: random.Random, folder: Path) -> None:
        variant = r.randrange(variants)
        made = store() / f"{make.__name__}-{variant}"
        if not made.exists():
            make(variant, made)
        shutil.copytree(made, folder, dirs_exist_ok=True)

    return write


class Phrases(NamedTuple):
    """A dataset of a few lines."""

    variant: int

    def key(self) -> str:
        return "phrases"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        r = random.Random(self.variant)
        return {n: iter([{"source": words(r), "target": words(r)} for _ in range(5)]) for n in ("train", "test")}


def make_prepared(variant: int, folder: Path) -> None:
    prepare(Phrases(variant), folder)  # pyright: ignore[reportArgumentType]


def read_prepared(folder: Path) -> None:
    data = prepare(Phrases(0), folder)  # pyright: ignore[reportArgumentType]
    for split in data.counts:
        assert len(list(data.read(split))) == data.size(split)


def make_tfds(variant: int, folder: Path) -> None:
    made = store() / f"for-tfds-{variant}"
    make_prepared(variant, made)
    shutil.copytree(made / "phrases" / "1.1.0", folder)


def read_tfds(folder: Path) -> None:
    for examples in Tfds(folder=str(folder), source="source", validation="test", test="").splits().values():
        assert len(list(examples)) > 0


def make_checkpoint(variant: int, folder: Path) -> None:
    rng = np.random.default_rng(variant)
    tree = {"step": np.int32(3), "params": {"a": rng.normal(size=(2, 3)).astype(np.float32), "b": [np.arange(4)]}}
    saver = saving.Saver(folder, 1)
    saver.save(tree, 3, {"best_step": 3})
    saver.close()


def read_checkpoint(folder: Path) -> None:
    assert isinstance(checkpoint.restore(folder, manifest.choose_step(folder)), dict)


def seal_manifests(folder: Path, hashes: Callable[[Path], dict[str, Any]] = lambda place: {}) -> None:
    for path in (p for p in folder.glob("checkpoints/*/manifest.json") if p.is_file()):
        with contextlib.suppress(Exception):  # a file that is no longer a manifest stays unchanged
            content = json.loads(path.read_text()) | hashes(path.parent)
            content.pop("sha256", None)
            content["sha256"] = manifest._digest_of_manifest(content)
            path.write_text(json.dumps(content))


def seal_checkpoint(folder: Path) -> None:
    seal_manifests(folder, lambda place: {"files": manifest.hash_files(place / "state")})


def make_run(variant: int, folder: Path) -> None:
    name, task = (("transformer", "translation"), ("recurrent_lm", "language_modeling"))[variant]
    parts = {"model": catalogue.module("models", name).TINY, "task": catalogue.part_class("tasks", task)()}
    parts["model"] = catalogue.without_sizes(parts["model"])
    columns = [column for column in ("source", "target") if column in parts["task"].columns]
    save_untrained(dataclasses.replace(tiny_experiment(), **parts), dict.fromkeys(columns, tiny_tokenizer()), folder)
    (folder / "data.json").write_text("{}")


def read_run(folder: Path) -> None:
    run = load(folder)
    assert run.codecs["target"].size == run.model.vocabulary


def make_marian(variant: int, folder: Path) -> None:
    experiment = tiny_experiment()
    experiment = dataclasses.replace(experiment, model=experiment.model.clone(norm="post"))
    run = store() / f"for-marian-{variant}"
    save_untrained(experiment, dict.fromkeys(("source", "target"), tiny_tokenizer()), run)
    export_marian(load(run), folder)


def read_marian(folder: Path) -> None:
    run = import_marian(folder, folder / "run")
    shutil.rmtree(run.folder)
    assert run.codecs["target"].size == run.model.vocabulary


def write_indices(r: random.Random, folder: Path) -> None:
    packages, texts = [], []
    for i in range(60):
        sum_of = f"{r.getrandbits(128):032x}"
        packages.append(f"Package: p{i}\nSection: text\nDescription-md5: {sum_of}\n")
        texts.append((f"Package: p{i}\nDescription-md5: {sum_of}\n", words(r), f"{words(r)}\n .\n {words(r)}"))
    files = {"Packages": "\n".join(packages)}
    for language in ("en", "de"):
        stanzas = [f"{head}Description-{language}: {line}\n {rest}\n" for head, line, rest in texts]
        files[f"Translation-{language}"] = "\n".join(stanzas)
    for name, text in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def read_indices(folder: Path) -> None:
    for examples in DebianDescriptions("en-de", str(folder)).splits().values():
        assert all(example["source"] for example in examples)


READERS = (
    Reader("lines of text", write_lines, read_text, named=True),
    Reader("parallel text", write_pairs, read_parallel, named=True),
    Reader("table, .tsv", write_table("tsv"), read_columns("tsv"), named=True),
    Reader("table, .jsonl", write_table("jsonl"), read_columns("jsonl"), named=True),
    Reader("Debian indices", write_indices, read_indices, named=True),
    Reader("prepared data", copied(make_prepared, 2), read_prepared),
    Reader("folder of TFDS", copied(make_tfds, 2), read_tfds, share=0.5),
    Reader("cache of ids", write_cache, read_cache),
    Reader("plan of batches", write_plan, read_plan),
    Reader("SentencePiece model", write_tokenizer, read_tokenizer),
    Reader("pieces of Marian", write_pieces, read_tokenizer),
    Reader("names of classes", write_names, read_names),
    Reader("experiment.json", write_experiment, read_experiment),
    Reader("metrics.jsonl", write_log, read_metrics),
    Reader("record of a resumed output", write_resumed, read_resumed),
    Reader("manifest.json", write_manifest, read_steps, seal_manifests),
    Reader("folder of Marian", copied(make_marian, 1), read_marian, share=0.5, named=True),
    Reader("checkpoint", copied(make_checkpoint, 2), read_checkpoint, seal_checkpoint, share=0.8),
    Reader("run, all its files", copied(make_run, 2), read_run, seal_checkpoint, share=0.4),
)


# Corruption

ODD_BYTES = (b"\0", b"\xff", b"\xed\xa0\x80", b"\r", b"\n", b"\n\n", b"\t", b"\xef\xbb\xbf", b"\x1f\x8b", b"{", b'"')
ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 7, 10**6, 10**12, -(10**12), 2**63, 10**30, 10**400, 0.5, -1e308),
    *(math.nan, math.inf, -math.inf),
    *("", "x", "0", "\ud800", "\0", "../../x", "/etc/passwd", "__init__", "os.system", "x" * 5000, "1e999"),
    *([], {}, [[]], [None], {"part": "transformer"}, {"": 0}, [1] * 300),
)  # fmt: skip
DEEP = "@deep@"  # a placeholder for more nested brackets than any parser supports


def broken_bytes(r: random.Random, content: bytes) -> bytes:
    at = r.randint(0, len(content))
    stretch = slice(at, at + r.choice([1, 2, 8, 64, 4096]))
    kind = r.randrange(7)
    if kind == 0:
        flipped = bytearray(content or b"\0")
        for _ in range(r.randint(1, 4)):
            flipped[r.randrange(len(flipped))] ^= 1 << r.randrange(8)
        return bytes(flipped)
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[: stretch.start] + content[stretch.stop :]
    if kind == 3:
        return content[: stretch.stop] + content[stretch] + content[stretch.stop :]
    if kind == 4:
        return content[:at] + r.choice(ODD_BYTES) * r.choice([1, 1, 3]) + content[at:]
    if kind == 5:
        return content[: stretch.start] + r.randbytes(len(content[stretch])) + content[stretch.stop :]
    return r.choice([b"", r.randbytes(r.randint(1, 200)), content + content])


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the paths of all values inside a JSON value, including itself."""
    yield path
    inner: Iterable[Any] = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, one in inner:
        yield from nodes(one, (*path, key))


def broken_value(r: random.Random, value: Any) -> Any:
    """Returns a JSON value with one change."""
    path = r.choice(list(nodes(value)))
    odd = r.choice([*ODD_VALUES, DEEP])
    if not path:
        return odd
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    kind = r.randrange(5)
    if kind == 0:
        del holder[path[-1]]
    elif kind == 1 and isinstance(holder, dict):
        holder[r.choice(["extra", "part", "parent", "name", "", "\ud800", "__class__"])] = odd
    elif kind == 1:
        holder.insert(path[-1], r.choice([odd, holder[path[-1]]]))
    else:
        holder[path[-1]] = odd
    return value


def as_json(value: Any) -> bytes:
    text = json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)
    return text.encode()


def broken_json(r: random.Random, content: bytes) -> bytes | None:
    """Returns JSON content with one value changed; in JSON Lines, in one line. Returns None if it is not JSON."""
    with contextlib.suppress(ValueError):
        return as_json(broken_value(r, json.loads(content)))
    lines = content.split(b"\n")
    at = r.randrange(len(lines))
    with contextlib.suppress(ValueError):
        lines[at] = as_json(broken_value(r, json.loads(lines[at])))
        return b"\n".join(lines)
    return None


def break_one(r: random.Random, folder: Path, named: bool) -> None:
    """Corrupts the content of a file in the folder, or replaces it by something other than a regular file."""
    path = r.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"))
    content = path.read_bytes()
    if r.random() < 0.1:
        path.unlink()
        kind = r.choice(["gone", "empty", "link", "folder", "circle", *([] if named else ["device", "pipe"])])
        if kind == "empty":
            path.touch()
        elif kind in ("link", "device", "circle"):
            path.symlink_to({"link": "/etc/hostname", "device": "/dev/zero", "circle": path}[kind])
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        return
    packed = path.suffix == ".gz" and r.random() < 0.7
    content = gzip.decompress(content) if packed else content
    found = broken_json(r, content) if r.random() < 0.7 else None
    content = broken_bytes(r, content) if found is None else found
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)


# Results


class Hang(BaseException):
    """Raised in a reader that takes too long."""


@contextlib.contextmanager
def hang_guard(seconds: float) -> Iterator[None]:
    """Raises `Hang` after some seconds in Python code. For native code that hangs, pytest prints the stacks."""

    def ring(number: int, frame: Any) -> None:
        raise Hang

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock"}


def outcome(reader: Reader, folder: Path, seconds: float) -> str:
    """Returns "accepted", "refused", or a description of the fault."""
    before = listing(folder)
    try:
        with hang_guard(seconds):
            reader.read(folder)
    except SeqlabError as error:
        names = (str(folder), *(path.name for path in folder.rglob("*")))
        if "\n" in str(error) or not any(name in str(error) for name in names):
            return f"an error that is not one line naming the file: {error}"
        left = listing(folder) - before
        return f"left behind: {', '.join(sorted(left))}" if left else "refused"
    except Hang:
        return "hangs"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"
    partial = [name for name in listing(folder) if name.endswith(".part")]
    return f"left behind: {', '.join(partial)}" if partial else "accepted"


class Counts(NamedTuple):
    """The numbers of inputs of a reader: all, malformed, accepted and refused; and its faults, by input."""

    inputs: int
    broken: int
    accepted: int
    refused: int
    faults: dict[str, str]


def make_input(reader: Reader, label: str, broken: bool, folder: Path) -> None:
    """Makes the input that a label names. It depends only on the label."""
    r = random.Random(label)
    folder.mkdir(parents=True, exist_ok=True)
    reader.write(r, folder)
    if broken:
        break_one(r, folder, reader.named)
        if r.random() < 0.5:
            reader.seal(folder)


def try_reader(reader: Reader, inputs: int, seed: int, keep: Path | None = None, seconds: float = SECONDS) -> Counts:
    """Tests a reader. Corrupts every second input, and seals half of these. Writes faulty inputs to `keep`."""
    counts = {"accepted": 0, "refused": 0}
    faults: dict[str, str] = {}
    for i in range(inputs):
        label = f"{reader.name} {seed} {i}"
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            make_input(reader, label, i % 2 == 1, Path(name))
            found = outcome(reader, Path(name), seconds)
        if found in counts:
            counts[found] += 1
            continue
        faults[label] = found
        if keep is not None:
            shutil.rmtree(keep / label, ignore_errors=True)
            make_input(reader, label, i % 2 == 1, keep / label)
    return Counts(inputs, inputs // 2, counts["accepted"], counts["refused"], faults)


def run(readers: Iterable[Reader], inputs: int, seed: int, keep: Path | None = None) -> dict[str, Counts]:
    """Distributes `inputs` inputs over the readers and returns the counts of each."""
    readers = list(readers)
    pairs = inputs / 2 / sum(reader.share for reader in readers)
    return {reader.name: try_reader(reader, 2 * math.ceil(pairs * reader.share), seed, keep) for reader in readers}


def table(found: dict[str, Counts]) -> Iterator[str]:
    """Yields the counts as lines of Markdown."""
    yield "| reader | inputs | malformed | read | refused | faults |"
    yield "|---|---|---|---|---|---|"
    for name, c in found.items():
        yield f"| {name} | {c.inputs:,} | {c.broken:,} | {c.accepted:,} | {c.refused:,} | {len(c.faults)} |"
    sums = [sum(column) for column in zip(*(c[:4] for c in found.values()), strict=True)]
    yield f"| all | {' | '.join(f'{n:,}' for n in sums)} | {sum(len(c.faults) for c in found.values())} |"


if __name__ == "__main__":
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    chosen = [reader for reader in READERS if len(sys.argv) < 4 or sys.argv[3] in reader.name]
    found = run(chosen, count, seed, Path("faults"))
    print("\n".join(table(found)))
    for counts in found.values():
        for label, fault in counts.faults.items():
            print(f"FAULT {label}: {fault[:300]}")
    sys.exit(any(counts.faults for counts in found.values()))
