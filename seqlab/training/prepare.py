"""TODO training.prepare."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.corpus import Corpus, tokenize_split
from seqlab.data.plans import Plan
from seqlab.data.records import Prepared, prepare
from seqlab.data.tokenizer_files import load_tokenizers, parse_names, parse_tokenizer
from seqlab.data.tokenizers import Labels, Numbers, Symbols, Tokenizer, Tokenizers
from seqlab.data.vocabulary import train_tokenizer
from seqlab.system.errors import SeqlabError, advised
from seqlab.system.files import made_once
from seqlab.training.checks import check_columns, check_kernel, check_longest


class PreparedExperiment(NamedTuple):
    """What training works on: the experiment, its sizes filled in; the data; the ids of its training split."""

    experiment: Experiment
    data: Prepared
    tokenizers: Tokenizers
    corpus: Corpus


def read_data(
    experiment: Experiment,
    data_dir: Path,
    run: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
    say: Callable[[str], None] = print,
) -> PreparedExperiment:
    """Prepares the data and its tokenizers, each once; those of `run` if it has them."""
    data = prepare(experiment.data, data_dir)
    check_columns(experiment, data)
    for what, count in data.origin.items():
        if what.startswith("lines mended"):
            say(f"{what}: {count}")
    tokenizers = make_tokenizers(experiment, data, data_dir, run, init_from, tokenizer)
    experiment = catalogue.resolve(experiment, tokenizers)
    corpus = tokenize_split(data, "train", tokenizers, data_dir, rates=getattr(experiment.data, "rates", ()))
    return PreparedExperiment(experiment, data, tokenizers, corpus)


def make_tokenizers(
    experiment: Experiment,
    data: Prepared,
    data_dir: Path,
    run: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
) -> Tokenizers:
    """Those of the run if it has them, of `init_from`, from the file `tokenizer`, or newly trained."""
    columns = experiment.task.columns
    texts = [name for name, kind in columns.items() if kind == "text"]
    given = None
    if tokenizer is not None:
        if not tokenizer.is_file():
            raise SeqlabError(f"no tokenizer {tokenizer}")
        given = dict.fromkeys(texts, parse_tokenizer(tokenizer.read_bytes(), str(tokenizer)))
    if (run / "experiment.json").exists():
        own = load_tokenizers(run, columns)
        if given is not None and given != {name: own[name] for name in texts}:
            raise SeqlabError(f"{run} has another tokenizer than {tokenizer}: choose another --out")
        return own
    if init_from is not None and given is None:
        catalogue.load_experiment(init_from / "experiment.json")
        return load_tokenizers(init_from, columns)

    def column(*wanted: str, stride: int = 1) -> Iterator[str]:
        return (example[name] for example in data.read("train", stride=stride) for name in wanted)

    def once(what: Any, make: Callable[[], bytes], parse: Callable[[bytes, str], Any]) -> Any:
        """The data and what is asked of it decide the result, so it is kept beside the ids."""
        identity = hashlib.sha256(repr((data.hashes["train"], what)).encode()).hexdigest()[:24]
        path = data_dir / "cache" / f"made-{identity}"
        content = made_once(path, make)
        with advised("remove it, and it is made again"):
            return parse(content, str(path))

    def tokenizer_of(*wanted: str) -> Tokenizer:
        text = experiment.text
        stride = -(-data.size("train") // text.sample)

        def make() -> bytes:
            return train_tokenizer(column(*wanted, stride=stride), text).model

        return once((text, wanted), make, parse_tokenizer)

    def names_in(name: str, split: Callable[[str], list[str]]) -> tuple[str, ...]:
        """All classes, or symbols, that occur."""

        def make() -> bytes:
            return json.dumps(sorted({part for text in column(name) for part in split(text)})).encode()

        return once((columns[name], name), make, parse_names)

    others: Tokenizers = {}
    for name, kind in columns.items():
        if kind == "class":
            others[name] = Labels(names_in(name, lambda text: [text]))
        elif kind == "symbols":
            others[name] = Symbols(names_in(name, str.split))
        elif kind == "numbers":
            others[name] = Numbers()
    if given is not None:
        return given | others
    if experiment.text.joint and texts:
        return dict.fromkeys(texts, tokenizer_of(*texts)) | others
    return {name: tokenizer_of(name) for name in texts} | others


def plan_batches(experiment: Experiment, corpus: Corpus, say: Callable[[str], None]) -> Plan:
    plan = experiment.task.plan(corpus, experiment.batching)
    for line in plan.describe():
        say(line)
    check_longest(experiment.model, plan)
    if not plan.batches(experiment.seed, 0):
        raise SeqlabError("no training example is short enough: raise batching.max_length")
    check_kernel(experiment.model, plan)
    return plan
