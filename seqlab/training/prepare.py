"""Preparation of an experiment for training: its data, its tokenizers, its corpus and its plan of batches."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab import catalogue
from seqlab.config import Experiment, Text
from seqlab.data.batches import make_batch
from seqlab.data.corpus import Corpus, tokenize_split
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.records import PreparedData, prepare
from seqlab.data.tokenizer_files import load_tokenizers, parse_names, parse_tokenizer
from seqlab.data.tokenizers import Labels, Numbers, Symbols, Tokenizer, Tokenizers
from seqlab.data.vocabulary import train_tokenizer
from seqlab.system.errors import SeqlabError, with_advice
from seqlab.system.files import read_or_make
from seqlab.training.checks import check_columns, check_kernel, check_longest


class PreparedExperiment(NamedTuple):
    """An experiment whose sizes are filled in, its data, its tokenizers, and the ids of its training split."""

    experiment: Experiment
    data: PreparedData
    tokenizers: Tokenizers
    corpus: Corpus

    def collate(self, batch_plan: BatchPlan) -> Any:
        """Returns the batch of some rows of the training split."""
        return make_batch(self.experiment.task, self.corpus, self.tokenizers, batch_plan)


def prepare_experiment(
    experiment: Experiment,
    data_dir: Path,
    run: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
    say: Callable[[str], None] = print,
) -> PreparedExperiment:
    """Prepares the data and the tokenizers of an experiment, each of which is stored and made only once.

    The tokenizers are those of the folder `run` if it has some, of the run `init_from`, from the file `tokenizer`, or
    newly trained. Raises `SeqlabError` for data without the columns of the task.
    """
    data = prepare(experiment.data, data_dir)
    check_columns(experiment, data)
    for name, count in data.origin.items():
        if name.startswith("lines mended"):
            say(f"{name}: {count}")
    tokenizers = make_tokenizers(experiment, data, data_dir, run, init_from, tokenizer)
    experiment = catalogue.resolve(experiment, tokenizers)
    corpus = tokenize_split(data, "train", tokenizers, data_dir, rates=getattr(experiment.data, "rates", ()))
    return PreparedExperiment(experiment, data, tokenizers, corpus)


def make_tokenizers(
    experiment: Experiment,
    data: PreparedData,
    data_dir: Path,
    run: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
) -> Tokenizers:
    """Returns the tokenizers of `run` if it has some, of `init_from`, from the file `tokenizer`, or newly trained."""
    columns = experiment.task.columns
    from_file = None if tokenizer is None else load_text_tokenizer(columns, tokenizer)
    if (run / "experiment.json").exists():
        stored = load_tokenizers(run, columns)
        if from_file is not None and from_file != {name: stored[name] for name in text_columns(columns)}:
            raise SeqlabError(f"{run} has another tokenizer than {tokenizer}: choose another --out")
        return stored
    if init_from is not None and from_file is None:
        catalogue.load_experiment(init_from / "experiment.json")
        return load_tokenizers(init_from, columns)
    label_tokenizers = make_label_tokenizers(columns, data, data_dir)
    if from_file is not None:
        return from_file | label_tokenizers
    return train_text_tokenizers(columns, experiment.text, data, data_dir) | label_tokenizers


def text_columns(columns: Mapping[str, str]) -> list[str]:
    """Returns the names of the columns that are tokenized as text."""
    return [name for name, kind in columns.items() if kind == "text"]


def load_text_tokenizer(columns: Mapping[str, str], path: Path) -> Tokenizers:
    """Returns the tokenizer in a file for every column of text. Raises `SeqlabError` for a missing file."""
    if not path.is_file():
        raise SeqlabError(f"no tokenizer {path}")
    return dict.fromkeys(text_columns(columns), parse_tokenizer(path.read_bytes(), str(path)))


def make_label_tokenizers(columns: Mapping[str, str], data: PreparedData, data_dir: Path) -> Tokenizers:
    """Returns the tokenizers of all columns but those of text: they list what occurs in the training split."""
    tokenizers: Tokenizers = {}
    for name, kind in columns.items():
        if kind == "class":
            tokenizers[name] = Labels(names_in_column(name, kind, data, data_dir))
        elif kind == "symbols":
            tokenizers[name] = Symbols(names_in_column(name, kind, data, data_dir))
        elif kind == "numbers":
            tokenizers[name] = Numbers()
    return tokenizers


def names_in_column(name: str, kind: str, data: PreparedData, data_dir: Path) -> tuple[str, ...]:
    """Returns the classes, or the symbols, that occur in a column of the training split, sorted."""

    def make() -> bytes:
        texts = read_columns(data, [name])
        names = {part for text in texts for part in (text.split() if kind == "symbols" else [text])}
        return json.dumps(sorted(names)).encode()

    return made_from_training_split((kind, name), data, data_dir, make, parse_names)


def train_text_tokenizers(columns: Mapping[str, str], text: Text, data: PreparedData, data_dir: Path) -> Tokenizers:
    """Returns the tokenizers of the columns of text, trained on the training split: a joint one, or one for each."""
    names = text_columns(columns)
    if text.joint and names:
        return dict.fromkeys(names, train_on_columns(names, text, data, data_dir))
    return {name: train_on_columns([name], text, data, data_dir) for name in names}


def train_on_columns(names: Sequence[str], text: Text, data: PreparedData, data_dir: Path) -> Tokenizer:
    """Returns a tokenizer that is trained on at most `text.sample` examples of some columns."""

    def make() -> bytes:
        stride = -(-data.size("train") // text.sample)
        return train_tokenizer(read_columns(data, names, stride), text).model

    return made_from_training_split((text, tuple(names)), data, data_dir, make, parse_tokenizer)


def read_columns(data: PreparedData, names: Sequence[str], stride: int = 1) -> Iterator[str]:
    """Yields the texts of some columns of every `stride`-th example of the training split."""
    return (example[name] for example in data.read("train", stride=stride) for name in names)


def made_from_training_split(
    recipe: Any, data: PreparedData, data_dir: Path, make: Callable[[], bytes], parse: Callable[[bytes, str], Any]
) -> Any:
    """Returns the parsed result of `make`, stored in the cache: the training split and `recipe` determine it."""
    identity = hashlib.sha256(repr((data.hashes["train"], recipe)).encode()).hexdigest()[:24]
    path = data_dir / "cache" / f"made-{identity}"
    content = read_or_make(path, make)
    with with_advice("remove it, and it is made again"):
        return parse(content, str(path))


def plan_batches(experiment: Experiment, corpus: Corpus, say: Callable[[str], None]) -> Plan:
    """Returns the plan of batches, after describing it by `say`. Raises `SeqlabError` for one that does not fit."""
    plan = experiment.task.plan(corpus, experiment.batching)
    for line in plan.describe():
        say(line)
    check_longest(experiment.model, plan)
    if not plan.batches(experiment.seed, 0):
        raise SeqlabError("no training example is short enough: raise batching.max_length")
    check_kernel(experiment.model, plan)
    return plan
