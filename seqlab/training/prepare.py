"""Preparation of an experiment for training: its data, codecs, corpus and batch plan."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab import catalogue
from seqlab.codecs.codec import Codec, Codecs, TextCodec, Value, content_of
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Experiment, Text
from seqlab.data.batches import make_batch
from seqlab.data.codec_files import load_codecs
from seqlab.data.corpus import Corpus, encode_split
from seqlab.data.curriculum import with_curriculum, with_scores
from seqlab.data.plans import BatchPlan, Plan
from seqlab.data.records import PreparedData, prepare
from seqlab.system.errors import SeqlabError, with_advice
from seqlab.system.files import read_or_make
from seqlab.system.parts import part_name
from seqlab.training.checks import check_columns, check_kernel, check_longest


class PreparedExperiment(NamedTuple):
    """An experiment with its sizes filled in, its data, its codecs, and its training split as arrays."""

    experiment: Experiment
    data: PreparedData
    codecs: Codecs
    corpus: Corpus

    def collate(self, batch_plan: BatchPlan, epoch: int) -> Any:
        """Returns the training batch for a batch plan and an epoch."""
        return make_batch(self.experiment.task, self.corpus, self.codecs, batch_plan, (self.experiment.seed, epoch))


def prepare_experiment(
    experiment: Experiment,
    data_dir: Path,
    run: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
    say: Callable[[str], None] = print,
) -> PreparedExperiment:
    """Prepares the data and the codecs of an experiment. Both are cached, so that each is made only once.

    The codecs come from the folder `run` if it exists, else from the file `tokenizer`, else from the run `init_from`;
    missing codecs are fitted to the training split. Raises `SeqlabError` if the data lacks a column of the task.
    """
    data = prepare(experiment.data, data_dir)
    check_columns(experiment, data)
    for name, count in data.origin.items():
        if name.startswith("lines repaired"):
            say(f"{name}: {count}")
    for line in describe_unused_text(experiment, None if tokenizer else init_from):
        say(line)
    codecs = make_codecs(experiment, data, data_dir, run, init_from, tokenizer)
    experiment = catalogue.resolve(experiment, codecs)
    corpus = encode_split(data, "train", codecs, data_dir, rates=getattr(experiment.data, "rates", ()))
    if difficulty := experiment.batching.difficulty:
        corpus = with_scores(corpus, difficulty, data, data_dir)
    return PreparedExperiment(experiment, data, codecs, corpus)


def make_codecs(
    experiment: Experiment,
    data: PreparedData,
    data_dir: Path,
    run: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
) -> Codecs:
    """Returns the codecs of `run` if it exists. Otherwise text columns use the SentencePiece model in the file
    `tokenizer`, if it is given, or else columns use the codecs of `init_from`. Missing codecs are fitted to the
    training split.
    """
    columns = experiment.task.columns
    from_file = {} if tokenizer is None else load_text_codecs(columns, tokenizer)
    if (run / "experiment.json").exists():
        stored = load_codecs(run, columns)
        if any(stored[name] != codec for name, codec in from_file.items()):
            raise SeqlabError(f"{run} has a different tokenizer than {tokenizer}: choose another --out")
        return stored
    given = {}
    if init_from is not None:
        stored_columns = catalogue.load_experiment(init_from / "experiment.json").task.columns
        given = load_codecs(init_from, {name: codec for name, codec in columns.items() if name in stored_columns})
    given |= from_file
    fitted = given | shared_codecs(columns, given, experiment.text)
    missing = {name: codec for name, codec in columns.items() if name not in fitted}
    codecs = fitted | fit_codecs(missing, experiment.text, data, data_dir)
    return {name: codecs[name] for name in columns}


def describe_unused_text(experiment: Experiment, init_from: Path | None) -> Iterator[str]:
    """Yields a line if the codecs of another run make settings of `text` ineffective."""
    stored = None if init_from is None else catalogue.load_experiment(init_from / "experiment.json").text
    if stored is not None and stored != experiment.text:
        yield f"the tokenizer is that of {init_from}, learned with {stored}: {experiment.text} has no effect"


def shared_codecs(columns: Mapping[str, Codec], given: Codecs, text: Text) -> Codecs:
    """Returns the codecs of further columns that share a codec with one of the given columns."""
    by_template = {columns[name]: codec for name, codec in given.items() if columns[name].shared(text)}
    return {name: by_template[codec] for name, codec in columns.items() if codec in by_template and name not in given}


def load_text_codecs(columns: Mapping[str, Codec], path: Path) -> Codecs:
    """Returns the SentencePiece model in a file for every text column. Raises `SeqlabError` for a missing file."""
    if not path.is_file():
        raise SeqlabError(f"--tokenizer {path} does not exist")
    loaded = SentencePiece.load(path.read_bytes(), str(path))
    names = [name for name, codec in columns.items() if isinstance(codec, TextCodec)]
    for name in names:
        columns[name].check(loaded)
    return dict.fromkeys(names, loaded)


def fit_codecs(columns: Mapping[str, Codec], text: Text, data: PreparedData, data_dir: Path) -> Codecs:
    """Fits the codecs of columns to the training split. Columns with equal, shared codecs get one joint codec."""
    groups: dict[Any, list[str]] = {}
    for name, codec in columns.items():
        groups.setdefault(codec if codec.shared(text) else name, []).append(name)
    fitted: Codecs = {}
    for names in groups.values():
        codec = columns[names[0]]
        fitted |= dict.fromkeys(names, fit_codec(codec, names, text, data, data_dir) if codec.learned else codec)
    return fitted


def fit_codec(codec: Codec, names: Sequence[str], text: Text, data: PreparedData, data_dir: Path) -> Codec:
    """Returns a codec fitted to columns of the training split, from the cache if it is there."""

    def read(sample: int | None) -> Iterator[Value]:
        stride = -(-data.size("train") // sample) if sample else 1
        return (example[name] for example in data.read("train", stride=stride) for name in names)

    identity = repr((data.hashes["train"], part_name(codec), codec.version, codec, text, tuple(names)))
    path = data_dir / "cache" / f"made-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"

    def fit() -> bytes:
        fitted: Any = codec.fit(read, text)
        name = type(codec).__name__
        if type(fitted) is not type(codec):
            raise SeqlabError(f"{name}.fit must return an instance of {name}, not of {type(fitted).__name__}")
        content = content_of(fitted)
        with with_advice(f"{name}.load must accept the content that {name}.save returns"):
            loaded: Any = codec.load(content, str(path))
        if type(loaded) is not type(codec) or content_of(loaded) != content:
            raise SeqlabError(f"{name}.load does not restore the codec that {name}.save wrote")
        return content

    content = read_or_make(path, fit)
    with with_advice("remove it, and it will be rebuilt"):
        return codec.load(content, str(path))


def settings_after_the_end(experiment: Experiment) -> Iterator[str]:
    """Yields a message for each setting that has no effect before training ends."""
    optimizer, ends = experiment.optimizer, f"and training has {experiment.steps}"
    if experiment.schedule.warmup > experiment.steps:
        yield f"schedule.warmup is {experiment.schedule.warmup} steps, {ends}: the peak rate is never reached"
    if optimizer.average_from > experiment.steps:
        yield f"optimizer.average_from is step {optimizer.average_from}, {ends}: no mean is computed"
    for pattern, first in optimizer.unfreeze:
        if first > experiment.steps:
            yield f"optimizer.unfreeze trains {pattern!r} from step {first}, {ends}: it is never trained"


def plan_batches(experiment: Experiment, corpus: Corpus, say: Callable[[str], None]) -> Plan:
    """Returns the batch plan and describes it with `say`. Raises `SeqlabError` if it does not fit the model."""
    whole = dataclasses.replace(experiment.batching, curriculum=0, difficulty="")  # cached without a curriculum
    plan = with_curriculum(experiment.task.plan(corpus, whole), experiment.batching, corpus)
    for line in plan.describe():
        say(line)
    for line in settings_after_the_end(experiment):
        say(line)
    check_longest(experiment.model, plan)
    if not plan.batches(experiment.seed, 0):
        raise SeqlabError("no training example is short enough: raise batching.max_length")
    check_kernel(experiment.model, plan)
    return plan
