"""The `seqlab` command. What takes long to import is imported inside the commands."""

import dataclasses
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from seqlab.compilation import keep_compilations
from seqlab.errors import STOPPED, SeqlabError, Stopped, at_least
from seqlab.memory import keep_freed_memory
from seqlab.signals import note_signals, wish_to_stop

DataDir = Annotated[Path, arg(help="Where prepared data lives; $SEQLAB_DATA, or data.")]
Parts = Annotated[Path | None, arg(help="A folder of your own models/, datasets/ and tasks/: Python, executed.")]
Run = Annotated[Positional[Path], arg(metavar="RUN")]
Cluster = Annotated["Processes", arg(name="")]
Which = Annotated[str, arg(metavar="best|last|STEP", help="Which checkpoint.")]
DATA_DIR = Path(os.environ.get("SEQLAB_DATA", "data"))


@dataclasses.dataclass(frozen=True)
class Processes:
    """Which of several processes this one is, that work as one."""

    coordinator: str | None = None
    """HOST:PORT of process 0; or auto: as Slurm, a TPU pod, Kubernetes or Open MPI say. None: there are no others."""
    processes: int | None = None
    """How many there are."""
    process: int | None = None
    """Which this is, from 0 on."""


ALONE = Processes()


def alone(arguments: list[str]) -> list[str]:
    """The arguments without those that make a process one of several, which another time are others."""
    names = tuple(f"--{field.name}" for field in dataclasses.fields(Processes))
    kept, skip = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if not skip and name not in names:
            kept.append(argument)
        skip = not skip and name in names and not equals
    return kept


def start_computing(cluster: Processes = ALONE, heartbeat: int = 100) -> None:
    """Configures memory, the compilation cache and, if there are several processes, the connection between them.

    Call it first in every command that computes. Of several processes only the first prints, and the cache is off:
    only the first would write to it, and would then wait for the others while they compile.
    """
    keep_freed_memory()
    if cluster == ALONE:
        keep_compilations()
        return
    if cluster.coordinator is None:
        raise SeqlabError("--processes and --process need --coordinator HOST:PORT")
    from seqlab import hosts

    at_least("parallel.heartbeat", heartbeat, 1)
    hosts.connect(cluster.coordinator, cluster.processes, cluster.process, heartbeat)
    if not hosts.is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What is given in the place of the run's own search: the fields of `config.Search`."""

    beam: int | None = None
    """Hypotheses kept a sentence; 1 is greedy search."""
    preset: str | None = None
    """What "beam search" means: seqlab, gnmt, fairseq, joey, marian, ct2 or hf."""
    length: str | None = None
    """The length penalty: none, gnmt, ((5 + n) / 6) ** alpha, or power, n ** alpha."""
    alpha: float | None = None
    """Its exponent."""
    word_penalty: float | None = None
    """What each token costs before the length penalty."""
    coverage: float | None = None
    """Weight of the coverage penalty, for models that attend to the source."""
    groups: int | None = None
    """Diverse beam search: so many groups, that keep away from one another's tokens."""
    diversity: float | None = None
    """What a token costs a group for each time that the groups before it have just chosen it."""
    stop: str | None = None
    """When a sentence is done: optimal, first, full, bound, top, empty or slots."""
    max_length: int | None = None
    """Most tokens to write, EOS included."""
    max_ratio: float | None = None
    """Most tokens to write, as a multiple of the source's."""
    min_length: int | None = None
    """Fewest tokens to write, EOS included."""
    min_ratio: float | None = None
    """Fewest tokens to write, as a multiple of the source's."""
    no_repeat: int | None = None
    """So many tokens in a row are not written twice."""
    repetition: float | None = None
    """Penalty of tokens that have been written; 1 is none."""
    forbid: tuple[str, ...] | None = None
    """Texts that are never written, each a single token."""
    sample: int | None = None
    """A seed: texts are drawn, and not searched for; as many as the beam holds, the likeliest first."""
    temperature: float | None = None
    """Of samples: below 1 what is likely becomes likelier."""
    top_k: int | None = None
    """Of samples: only the so many likeliest tokens may be drawn."""
    top_p: float | None = None
    """Of samples: only the likeliest tokens that have this share of the probability together."""
    batch_tokens: int | None = None
    """Most positions of sources and hypotheses at once, a device."""
    risk: str | None = None
    """Minimum Bayes risk: the sample that is most like all the others, by chrf or bleu."""


NO_SEARCH = SearchOptions()


@dataclasses.dataclass(frozen=True)
class AnalysisOptions:
    """How much of a split is analyzed, and how far."""

    lines: int = 0
    """Only the first so many lines; 0: all."""
    beams: tuple[int, ...] = (1, 2, 5, 10, 50)
    """Widths that are tried."""
    exact: int = 100
    """How many lines exact search looks at; 0: none."""
    nodes: int = 1000
    """Steps of the model that it takes for each."""


ALL_OF_IT = AnalysisOptions()


def train(arguments: list[str]) -> None:
    """Trains CONFIG into RUN: seqlab train CONFIG --out RUN [--steps N] [--model.dim N] ..."""
    usage = "usage: seqlab train CONFIG --out RUN [options]; seqlab train CONFIG --help lists CONFIG's options"
    name, rest = first_argument(arguments, "CONFIG", usage)
    from seqlab import catalogue

    config = catalogue.load_config(Path(name))

    def run(
        out: Annotated[Path, arg(metavar="RUN", help="The run's folder.")],
        experiment: Annotated[Any, arg(name="")] = config,
        init_from: Annotated[Path | None, arg(metavar="RUN", help="Another run, to start from its best.")] = None,
        tokenizer: Annotated[Path | None, arg(metavar="FILE", help="A SentencePiece model to use.")] = None,
        explain: Annotated[bool, arg(help="Prints which part of the state lies on which axis, and ends.")] = False,
        cluster: Cluster = ALONE,
        data_dir: DataDir = DATA_DIR,
        parts: Parts = None,
    ) -> None:
        """Trains CONFIG into the folder RUN. The same command again goes on where the run was."""
        from seqlab import train
        from seqlab.runs import command_line

        with wish_to_stop():
            start_computing(cluster, experiment.parallel.heartbeat)
            if explain:
                print("\n".join(train.explained(experiment)))
                return
            command = command_line(Path.cwd(), ["seqlab", "train", *alone(arguments)])
            train.train(experiment, out, data_dir, init_from, tokenizer, command=command)

    tyro.cli(run, prog=f"seqlab train {name}", args=rest)


def launch(arguments: list[str]) -> None:
    """Runs a command in several processes on this machine: seqlab launch --processes N -- train CONFIG --out RUN"""
    at = arguments.index("--") if "--" in arguments else len(arguments)

    def run(
        processes: Annotated[int, arg(metavar="N", help="How many.")],
        grace: Annotated[
            float, arg(metavar="S", help="Seconds from SIGTERM to SIGKILL, once one has failed.")
        ] = 30.0,
        gpus_each: Annotated[int, arg(metavar="K", help="GPUs of its own for each; 0: each sees all.")] = 0,
    ) -> None:
        """Runs `seqlab train`, `decode` or `evaluate`, which follows behind --, in N processes on this machine. When
        one ends badly it is named, the others are stopped, and the exit code is its own; 75: stopped as asked, saved.
        """
        from seqlab.launch import launch, seqlab_commands

        code = launch(seqlab_commands(arguments[at + 1 :], processes, gpus_each), grace)
        if code not in (0, 2) and arguments[at + 1] == "train":
            print("seqlab launch: the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(code)

    tyro.cli(run, prog="seqlab launch", args=arguments[:at])


def first_argument(arguments: list[str], what: str, usage: str) -> tuple[str, list[str]]:
    """The first argument, on which the options hinge, and the others; a user's parts are found from here on."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        sys.exit(0)
    if arguments[0].startswith("-"):
        raise SeqlabError(f"{what} comes first; {usage}")
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--parts":
            use_parts(Path(value if equals else (arguments[i + 1 : i + 2] or [""])[0]))
    return arguments[0], arguments[1:]


def decode(
    run: Run,
    input: Annotated[Path | None, arg(metavar="F", help="Text, a line each; .gz is read. Default: stdin.")] = None,
    output: Annotated[Path | None, arg(metavar="F", help="Where to; .gz is written. Default: stdout.")] = None,
    search: Annotated[SearchOptions, arg(name="")] = NO_SEARCH,
    nbest: Annotated[int, arg(help='N lines "line ||| text ||| score" for each input line.')] = 0,
    scores: Annotated[bool, arg(help='Adds " ||| score" to each line.')] = False,
    alignments: Annotated[
        Literal["pharaoh", "json"] | None,
        arg(help='Which words of the source are looked at: adds " ||| i-j ..."; or lines of JSON, by token.'),
    ] = None,
    prefixes: Annotated[Path | None, arg(metavar="F", help="What texts must begin with, a line each.")] = None,
    constraints: Annotated[
        Path | None, arg(metavar="F", help="Phrases that must be in the text, a line each, tabs between them.")
    ] = None,
    checkpoint: Which = "best",
    ensemble: Annotated[tuple[Path, ...], arg(metavar="RUN", help="More runs, that write as one with it.")] = (),
    mean: Annotated[str, arg(help="Of an ensemble: of probabilities or log_probabilities.")] = "probabilities",
    lm: Annotated[Path | None, arg(metavar="RUN", help="A language model of the same tokens.")] = None,
    lm_weight: Annotated[float, arg(help="What its log-probabilities are multiplied by, and added.")] = 0.1,
    cluster: Cluster = ALONE,
    resume: Annotated[bool, arg(help="Writes as it goes, and goes on where a killed process left --output.")] = False,
    shard: Annotated[
        str, arg(metavar="I/N", help="Only the I-th of N parts of --input; cat makes them whole.")
    ] = "1/1",
    errors: Annotated[Literal["strict", "replace"], arg(help="What is not UTF-8 is refused, or mended.")] = "strict",
    dtype: Annotated[Literal["float32", "bfloat16"] | None, arg(help="Of the model, for this decoding.")] = None,
    parts: Parts = None,
) -> None:
    """Writes a line for each line of input, by beam search."""
    use_parts(parts)
    from seqlab.decode import load, together
    from seqlab.hosts import is_first
    from seqlab.stream import Format, decode_file, decode_stream

    for path in (input, prefixes, constraints):
        if path is not None and (path.is_dir() or not path.exists()):
            raise SeqlabError(f"no input {path}")
    if (resume or shard != "1/1") and (input is None or not input.is_file()):
        raise SeqlabError(f"--{'resume' if resume else 'shard'} is of a file: give --input")
    if resume and output is None:
        raise SeqlabError("--resume goes on with a file: give --output")
    if cluster != ALONE and (input is None or resume):
        raise SeqlabError("several processes need --input, and know no --resume: give each a --shard for that")
    form = Format(nbest, scores, alignments)
    check_output(output, input, prefixes, constraints)
    start_computing(cluster)
    loaded = load_writer(run, checkpoint, dtype)
    if ensemble or lm is not None:
        others = [load(other, checkpoint, dtype) for other in ensemble]
        loaded = together([loaded, *others], mean, lm and load(lm, checkpoint, dtype), lm_weight)
    asked = dataclasses.asdict(search)
    found = loaded.search(**asked)
    if nbest < 0 or nbest > found.beam:
        raise SeqlabError(
            f"--nbest {nbest} needs a beam of {nbest} or more" if nbest > 0 else "--nbest is at least 1"
        )
    if input is None and output is None and sys.stdin.isatty():
        for line in iter(read_typed, None):
            print("\n".join(decode_stream(loaded, [line], form, **asked)))
        return
    decode_file(
        loaded,
        input,
        output if is_first() else Path(os.devnull),
        form,
        prefixes=prefixes,
        phrases=constraints,
        resume=resume,
        shard=shard,
        errors=errors,
        **asked,
    )


def force(
    run: Run,
    target: Annotated[Path, arg(metavar="G", help="Texts, a line each.")],
    input: Annotated[
        Path | None, arg(metavar="F", help="Their sources, a line each; a language model has none.")
    ] = None,
    output: Annotated[Path | None, arg(metavar="F", help="Where to; .gz is written. Default: stdout.")] = None,
    tokens: Annotated[bool, arg(help='Adds " ||| token log-probability" for each token.')] = False,
    checkpoint: Which = "best",
    parts: Parts = None,
) -> None:
    """Writes the log-probability of given texts, a line each."""
    use_parts(parts)
    from seqlab import text
    from seqlab.stream import force_stream

    check_output(output)
    start_computing()
    loaded = load_writer(run, checkpoint)
    sources = None if input is None else text.read_lines(input)
    with text.open_output(output) as stream:
        stream.writelines(line + "\n" for line in force_stream(loaded, sources, text.read_lines(target), tokens))


def load_writer(run: Path, checkpoint: str, dtype: str | None = None) -> Any:
    """A run that can write; raises for one that cannot."""
    from seqlab.decode import load

    loaded = load(run, checkpoint, dtype)
    kind = loaded.experiment.task.KIND
    if kind != "generator":
        raise SeqlabError(f"a {kind} writes no text, and search is for generators: judge it by seqlab evaluate")
    return loaded


def check_output(path: Path | None, *inputs: Path | None) -> None:
    """Refuses, before the work is done, a file that could not be written after it, or that is read."""
    if path is not None and any(one is not None and path.resolve() == one.resolve() for one in inputs):
        raise SeqlabError(f"{path} is read, and would be written over: choose another file")
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise SeqlabError(f"{path}: {'is a folder' if path.is_dir() else f'no folder {path.parent}'}")


def read_typed() -> str | None:
    try:
        return input("> ")
    except EOFError:
        return None


def evaluate(
    run: Run,
    split: str = "test",
    search: Annotated[SearchOptions, arg(name="")] = NO_SEARCH,
    checkpoint: Which = "best",
    output: Annotated[Path | None, arg(metavar="F", help="Writes the decoded lines there too.")] = None,
    json: bool = False,
    cluster: Cluster = ALONE,
    data_dir: DataDir = DATA_DIR,
    parts: Parts = None,
) -> None:
    """Decodes a split and prints the task's scores with their signatures."""
    use_parts(parts)
    from seqlab import checkpoint as checkpoints
    from seqlab import text
    from seqlab.compare import versions
    from seqlab.config import Search
    from seqlab.decode import evaluate, load
    from seqlab.hosts import is_first

    check_output(output)
    start_computing(cluster)
    loaded = load(run, checkpoint)
    kind = loaded.experiment.task.KIND
    if kind != "generator" and search != NO_SEARCH:
        raise SeqlabError(f"a {kind} does not search: leave out --beam and the like")
    result = evaluate(loaded, split, data_dir, **dataclasses.asdict(search))
    if output is not None and is_first():
        with text.open_output(output) as stream:
            stream.writelines(line.replace("\n", " ") + "\n" for line in result.decoded.texts)
    for doubt in result.doubts:
        print(f"seqlab: {doubt}", file=sys.stderr)
    facts = {
        "run": str(run),
        "checkpoint": loaded.step,
        "parameters": {"sha256": checkpoints.fingerprint(run, loaded.step)},
        "split": split,
        "lines": len(result.decoded.texts),
        "search": dataclasses.asdict(result.search),
        "decoding_seconds": round(result.decoded.seconds, 2),
        "data": {"sha256": result.data.hashes[split], **result.data.origin},
        "changed": result.changed,
        "versions": versions(),
    }
    show_scores(result.scores, json, facts)
    if not json:
        print(f"checkpoint: step {loaded.step} sha256 {facts['parameters']['sha256']}")
        if kind == "generator":
            usual = dataclasses.asdict(Search())
            asked = {n: v for n, v in facts["search"].items() if n in ("beam", "preset") or v != usual[n]}
            print(f"search: {', '.join(f'{name} {value}' for name, value in asked.items())}")
        print(f"versions: {', '.join(f'{name} {version}' for name, version in facts['versions'].items())}")
        for name, value in facts["data"].items():
            print(f"data: {name} {value}")
        if result.changed:
            print(f"data: changed since the run was trained: {', '.join(result.changed)}")


def score(
    hypotheses: Annotated[Positional[Path], arg(metavar="H", help="A text file.")],
    references: Annotated[tuple[Path, ...], arg(metavar="R", help="One or more text files.")],
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME", help="See seqlab list metrics.")] = (
        "bleu",
        "chrf",
        "ter",
    ),
    by_line: Annotated[
        Path | None, arg(metavar="F", help="Writes the scores of each line alone there, apart by tabs.")
    ] = None,
    tokenized: Annotated[bool, arg(help="Text that looks tokenized is meant to.")] = False,
    json: bool = False,
) -> None:
    """Scores a text file against references, line by line."""
    check_output(by_line, hypotheses, *references)
    from seqlab import text
    from seqlab.compare import check_sizes, digest_of_lines, read_texts, versions
    from seqlab.metrics import doubts, score, score_lines

    files = {str(path): read_texts(path) for path in (hypotheses, *references)}
    check_sizes(files)
    lines, *wanted = (files[str(path)] for path in (hypotheses, *references))
    scores = [found for name in metrics for found in score(name, lines, wanted)]
    for doubt in doubts(metrics, lines, wanted, tokenized):
        print(f"seqlab: {doubt}", file=sys.stderr)
    facts = {"files": {name: digest_of_lines(some) for name, some in files.items()}, "versions": versions()}
    if by_line is not None:
        columns = [(name, *pair) for name in metrics for pair in score_lines(name, lines, wanted).items()]
        labels = [label for _, label, _ in columns]
        alone = {label if labels.count(label) == 1 else f"{label} ({name})": x for name, label, x in columns}
        with text.open_output(by_line) as stream:
            stream.write("\t".join(["line", *alone]) + "\n")
            for i, row in enumerate(zip(*alone.values(), strict=True), 1):
                stream.write("\t".join([str(i), *(f"{value:.4f}" for value in row)]) + "\n")
        facts["mean over lines"] = {label: float(x.mean()) for label, x in alone.items()}
    show_scores(scores, json, facts)


def compare(
    systems: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="RUN_OR_FILE",
            help="The first is what others are compared with. Seeds of one: commas between them.",
        ),
    ],
    references: Annotated[
        tuple[Path, ...], arg(metavar="R", help="Text files; of runs, the split's are known.")
    ] = (),
    split: Annotated[str, arg(help="What runs decode, each by its own search.")] = "test",
    source: Annotated[
        Path | None, arg(metavar="F", help="The sources of files: for lengths and copied words.")
    ] = None,
    train: Annotated[
        Path | None, arg(metavar="F", help="The target side of training, of files: how often it had a word.")
    ] = None,
    metrics: Annotated[
        tuple[str, ...], arg(metavar="NAME", help="Those of the run's task; of files: bleu, chrf and ter.")
    ] = (),
    tokenized: Annotated[bool, arg(help="Text that looks tokenized is meant to.")] = False,
    json: bool = False,
    data_dir: DataDir = DATA_DIR,
    parts: Parts = None,
) -> None:
    """Compares systems by all that is known: scores, intervals, tests of significance, and where they differ."""
    use_parts(parts)
    from seqlab.compare import compared, gather, shown
    from seqlab.report import plain

    if not systems:
        raise SeqlabError("name the runs or files to compare")
    start_computing()
    found = compared(gather(systems, references, data_dir, split, source, train, metrics), tokenized)
    for doubt in found.doubts:
        print(f"seqlab: {doubt}", file=sys.stderr)
    print(dump(plain(found)) if json else shown(found))


def analyze(
    run: Run,
    split: str = "test",
    effort: Annotated[AnalysisOptions, arg(name="")] = ALL_OF_IT,
    search: Annotated[SearchOptions, arg(name="")] = NO_SEARCH,
    checkpoint: Which = "best",
    output: Annotated[
        Path | None, arg(metavar="F", help="Writes all lines with their faults there, each as JSON.")
    ] = None,
    json: bool = False,
    data_dir: DataDir = DATA_DIR,
    parts: Parts = None,
) -> None:
    """Tells search errors from model errors: references and texts under the model, wider beams, exact search."""
    use_parts(parts)
    from seqlab import text
    from seqlab.analysis import analyze, shown
    from seqlab.report import plain

    check_output(output)
    start_computing()
    loaded = load_writer(run, checkpoint).searching(**dataclasses.asdict(search))
    found = analyze(loaded, split, data_dir, **dataclasses.asdict(effort))
    if output is not None:
        with text.open_output(output) as stream:
            stream.writelines(dump_line(plain(one)) + "\n" for one in found.lines)
    print(dump({**plain(found), "lines": len(found.lines)}) if json else shown(found))


def report(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN", help="Runs of one task.")],
    out: Annotated[Path, arg(metavar="F", help="Where to: a page of HTML.")],
    split: str = "test",
    effort: Annotated[AnalysisOptions, arg(name="")] = ALL_OF_IT,
    checkpoint: Which = "best",
    data_dir: DataDir = DATA_DIR,
    parts: Parts = None,
) -> None:
    """Writes a page to look at: curves, scores, buckets, errors, sentences, what is attended to."""
    use_parts(parts)
    from seqlab.decode import load
    from seqlab.report import report

    if not runs:
        raise SeqlabError("name the runs to report on")
    check_output(out)
    start_computing()
    loaded = [load(run, checkpoint) for run in runs]
    write_page(out, report(loaded, split, data_dir, **dataclasses.asdict(effort)))


def inspect(
    run: Run,
    text: Annotated[str, arg(help="The input; the sentences of a document apart by tabs.")],
    out: Annotated[Path | None, arg(metavar="F", help="Writes a page of HTML to look at there.")] = None,
    search: Annotated[SearchOptions, arg(name="")] = NO_SEARCH,
    checkpoint: Which = "best",
    json: bool = False,
    parts: Parts = None,
) -> None:
    """Shows what a run does with one input: the beam as a tree, token by token, and what is attended to."""
    use_parts(parts)
    from seqlab.decode import load
    from seqlab.inspection import inspect, shown
    from seqlab.report import page, plain
    from seqlab.stream import sources_in

    check_output(out)
    start_computing()
    loaded = load(run, checkpoint).searching(**dataclasses.asdict(search))
    found = inspect(loaded, next(sources_in(loaded, [text])))
    if out is not None:
        write_page(
            out,
            page(
                {
                    "title": text if len(text) <= 72 else f"{text[:70]} …",
                    "made": f"seqlab inspect {run}",
                    "inspection": found,
                }
            ),
        )
    print(dump(plain(found)) if json else shown(found))


def write_page(path: Path, content: str) -> None:
    from seqlab.files import write_atomically

    write_atomically(path, content)
    print(f"{path}: {len(content.encode()) / 2**20:.2f} MiB", file=sys.stderr)


def show_scores(scores: list[Any], as_json: bool, facts: dict[str, Any]) -> None:
    if as_json:
        print(dump({**facts, "scores": [one._asdict() for one in scores]}))
        return
    width = max(12, *(len(one.name) for one in scores))
    for name, value, signature in scores:
        shown = f"{value:8.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:8.1e}"
        print(f"{name:{width}} {shown}  {signature}")


def prepare(arguments: list[str]) -> None:
    """Prepares a data set: seqlab prepare multi30k/en-de --folder DIR [--data-dir DIR]"""
    usage = "usage: seqlab prepare DATASET [options]; seqlab prepare DATASET --help lists DATASET's options"
    name, rest = first_argument(arguments, "DATASET", usage)
    from seqlab import catalogue, datasets

    if name.partition("/")[0] == "mixture":
        raise SeqlabError("a mixture is written in a config, and prepared by the training that uses it")
    default = catalogue.dataset(name)

    def run(
        dataset: Annotated[Any, arg(name="")] = default, data_dir: DataDir = DATA_DIR, parts: Parts = None
    ) -> None:
        """Prepares a data set, once."""
        prepared = datasets.prepare(dataset, data_dir)
        print(prepared.folder)
        for split, count in prepared.counts.items():
            print(f"{split:20} {count:10,} examples  sha256 {prepared.hashes[split][:16]}")
        for name, value in prepared.origin.items():
            print(f"{name}: {value}")

    tyro.cli(run, prog=f"seqlab prepare {name}", args=rest)


def list_parts(
    what: Positional[Literal["models", "tasks", "datasets", "configs", "metrics"]],
    json: bool = False,
    parts: Parts = None,
) -> None:
    """Lists models, tasks, datasets, configs or metrics."""
    use_parts(parts)
    if what == "configs":
        found = {str(path): first_line(path) for path in sorted(Path("configs").glob("*.py"))}
    elif what == "metrics":
        from seqlab.metrics import METRICS

        found = {name: metric.what for name, metric in METRICS.items()}
    else:
        from seqlab import catalogue

        found = catalogue.describe(what)
    if json:
        print(dump(found))
        return
    width = max(map(len, found), default=0)
    for name, line in found.items():
        print(f"{name:{width}}  {line}")


def first_line(path: Path) -> str:
    import ast

    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def check(
    what: Annotated[Positional[Path], arg(metavar="CONFIG_OR_RUN")],
    checkpoint: Which = "best",
    json: bool = False,
    parts: Parts = None,
) -> None:
    """Proves the laws that make sense at full size on a model, and prints a certificate."""
    use_parts(parts)
    from seqlab import catalogue, laws

    start_computing()
    if what.is_dir():
        from seqlab.decode import load

        loaded = load(what, checkpoint)
        model, task, params = loaded.experiment.model, loaded.experiment.task, loaded.params
    else:
        experiment = catalogue.load_config(what)
        catalogue.check_parts(experiment)
        model, task, params = catalogue.sized(experiment.model, experiment.text.size), experiment.task, None
    found = []
    for name, holds, more in laws.certificate(model, task, params):
        found.append({"name": name, "holds": holds, "more": more})
        if not json:
            print(f"{name:24} {'yes' if holds else 'NO'}{f'  {more}' if more else ''}", flush=True)
    if json:
        print(dump(found))
    if not all(one["holds"] for one in found):
        raise SeqlabError(f"{type(model).__name__} breaks a law")


def cost(arguments: list[str]) -> None:
    """Counts and measures a training and a decoding step: seqlab cost CONFIG [--lengths N ...] [--model.dim N] ..."""
    usage = "usage: seqlab cost CONFIG [options]; seqlab cost CONFIG --help lists CONFIG's options"
    name, rest = first_argument(arguments, "CONFIG", usage)
    from seqlab import catalogue

    config = catalogue.load_config(Path(name))

    def run(
        experiment: Annotated[Any, arg(name="")] = config,
        lengths: Annotated[tuple[int, ...], arg(metavar="N", help="Positions of source and target.")] = (64, 256),
        rows: Annotated[int, arg(help="Sequences at once.")] = 1,
        json: bool = False,
        parts: Parts = None,
    ) -> None:
        """Counts and measures a training step and a decoding step of CONFIG at some lengths."""
        from seqlab.cost import costs, parameters, with_sizes
        from seqlab.errors import at_least
        from seqlab.train import check

        start_computing()
        check(experiment)
        at_least("--rows", rows, 1)
        at_least("--lengths", min(lengths, default=0), 2)
        most = getattr(experiment.model, "longest", None) or max(lengths)
        if max(lengths) > most:
            raise SeqlabError(
                f"--lengths {max(lengths)} is more than the {most} positions of the model: raise model.max_length"
            )
        experiment = with_sizes(experiment)
        size, found = parameters(experiment), []
        if not json:
            print(f"{size:,} parameters, {rows} x N positions\n")
            print(f"{'N':>6}  {'step':8} {'operations':>11} {'in a row':>9} {'time':>10} {'memory':>9}  moves")
        for length in lengths:
            one = costs(experiment, length, rows)
            found.append({**one._asdict(), "training": one.training._asdict()})
            if one.decoding is not None:
                found[-1]["decoding"] = one.decoding._asdict()
            moves = ", ".join(f"{side} {'-' if count is None else count}" for side, count in one.paths.items())
            for what, step, more in (("training", one.training, moves), ("decoding", one.decoding, "")):
                if step is not None and not json:
                    counted = f"{step.operations / 1e9:9.3f} G {step.sequential:9,}"
                    measured = f"{step.seconds * 1e3:7.1f} ms {step.memory / 2**20:5.0f} MiB"
                    print(f"{length:6}  {what} {counted} {measured}  {more}".rstrip(), flush=True)
        if json:
            print(dump({"parameters": size, "rows": rows, "costs": found}))

    tyro.cli(run, prog=f"seqlab cost {name}", args=rest)


def diagnose(arguments: list[str]) -> None:
    """Shows how CONFIG learns, in plots: seqlab diagnose CONFIG --out DIR [--first N] [--model.dim N] ..."""
    usage = "usage: seqlab diagnose CONFIG --out DIR [options]; seqlab diagnose CONFIG --help lists CONFIG's options"
    name, rest = first_argument(arguments, "CONFIG", usage)
    from seqlab import catalogue

    config = catalogue.load_config(Path(name))

    def run(
        out: Annotated[Path, arg(metavar="DIR", help="The new folder.")],
        experiment: Annotated[Any, arg(name="")] = config,
        first: Annotated[int, arg(metavar="N", help="How many of the steps of training are run.")] = 200,
        data_dir: DataDir = DATA_DIR,
        parts: Parts = None,
    ) -> None:
        """Runs the first steps of CONFIG and a range test of its learning rate, and writes into the folder DIR how
        far gradients reach back, which units are dead, how large updates are, and whether the gradient is right.
        """
        from seqlab import diagnose

        start_computing()
        diagnose.diagnose(experiment, out, data_dir, first)

    tyro.cli(run, prog=f"seqlab diagnose {name}", args=rest)


def import_run(
    kind: Positional[Literal["marian"]],
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="A Hugging Face folder of a MarianMTModel.")],
    out: Annotated[Path, arg(metavar="RUN", help="The run's folder.")],
) -> None:
    """Makes a run of another toolkit's model, to decode with."""
    from seqlab.files import check_new
    from seqlab.marian import import_marian

    check_new(out)
    start_computing()
    run = import_marian(folder, out)
    print(f"{out}: {type(run.model).__name__}, {len(run.tokenizers['target']):,} tokens, from {kind}")


def export(
    run: Run,
    out: Annotated[Path, arg(metavar="DIR", help="The new folder.")],
    to: Annotated[Literal["marian", "stablehlo"], arg(help="A Hugging Face folder; or the search as a program.")],
    checkpoint: Which = "best",
    rows: Annotated[int, arg(help="stablehlo: sentences at once.")] = 8,
    length: Annotated[int, arg(help="stablehlo: most tokens of a source, and of a text.")] = 64,
    parts: Parts = None,
) -> None:
    """Writes a run's model for another toolkit."""
    use_parts(parts)
    from seqlab.files import check_new

    check_new(out)
    at_least("--rows", rows, 1)
    at_least("--length", length, 1)
    start_computing()
    loaded = load_writer(run, checkpoint)
    if to == "marian":
        from seqlab.marian import export_marian

        export_marian(loaded, out)
    else:
        from seqlab.stablehlo import export_stablehlo

        export_stablehlo(loaded, out, rows, length)
    print(out)


def show_batch(
    run: Run,
    step: Annotated[int | None, arg(metavar="N", help="Which step, from 1 on.")] = None,
    batch: Annotated[
        str | None, arg(metavar="EPOCH/INDEX", help="Or which batch: one that was left out, say.")
    ] = None,
    rows: Annotated[int, arg(metavar="K", help="How many of its rows are shown.")] = 3,
    json: bool = False,
    data_dir: DataDir = DATA_DIR,
    parts: Parts = None,
) -> None:
    """Shows the batch that step N of training saw: tokens, pads, positions, targets, weights."""
    use_parts(parts)
    from seqlab import show_batch

    at_least("--rows", rows, 1)
    epoch, _, index = (batch or "").partition("/")
    if step is None and batch is None:
        raise SeqlabError("which batch? Give --step N, from 1 on, or --batch EPOCH/INDEX, from 0 on")
    if batch is not None and (step is not None or not (epoch.isdecimal() and index.isdecimal())):
        raise SeqlabError(f"--batch is EPOCH/INDEX, from 0 on, in the place of --step, not {batch!r}")
    place = None if batch is None else (int(epoch), int(index))
    found = show_batch.facts(show_batch.fed_to(run, step or 0, data_dir, place), run, rows)
    print(dump(found) if json else show_batch.shown(found, shutil.get_terminal_size().columns))


def list_runs(
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="Where runs are, up to three folders down.")],
    json: bool = False,
) -> None:
    """Lists the runs in DIR: how far they are, their best scores, and how to go on with those that have died."""
    from seqlab import runs

    found = runs.find(folder)
    if json:
        print(dump([runs.plain(one) for one in found]))
    elif found:
        width = os.get_terminal_size().columns if sys.stdout.isatty() else None
        print(runs.shown(found, time.time(), width))
    else:
        print(f"no runs in {folder}")


def fingerprint(run: Run, json: bool = False) -> None:
    """SHA-256 of the newest checkpoint: parameters, optimizer state, carry and step."""
    from seqlab import checkpoint

    step = checkpoint.choose_step(run, "last")
    digest = checkpoint.fingerprint(run, step)
    print(dump({"step": step, "sha256": digest}) if json else digest)


def bisect(
    first: Run,
    second: Run,
    json: bool = False,
    parts: Parts = None,
) -> None:
    """Names the first step at which two runs differ, and in what; the exit code is then 1, and 0 if they agree.

    Both must have been trained with --hash-every N; only the steps that both have hashed are compared.
    """
    use_parts(parts)
    from seqlab import trail

    found = trail.bisect(first, second)
    print(dump(found._asdict()) if json else trail.shown(found))
    if found.step is not None:
        sys.exit(1)


def average(
    run: Run,
    last: Annotated[int, arg(metavar="N", help="How many of the newest checkpoints.")],
    out: Annotated[Path | None, arg(metavar="RUN", help="The new run's folder. Default: RUN-average.")] = None,
    parts: Parts = None,
) -> None:
    """Writes a run with the mean of the last N checkpoints' parameters, to decode with."""
    use_parts(parts)
    from seqlab.decode import average

    out = out or run.with_name(run.name + "-average")
    steps = average(run, last, out)
    print(f"{out}: the mean of steps {', '.join(map(str, steps))}")


def cache(clear: Annotated[bool, arg(help="Remove all compiled programs.")] = False) -> None:
    """Shows the folder of compiled programs, their number and their size, or removes them."""
    from seqlab import compilation

    kept = compilation.clear() if clear else compilation.usage()
    print(f"{compilation.cache_folder()}{': removed' if clear else ''}")
    print(f"programs {kept.programs:,}, size {kept.size / 2**20:.1f} MiB, limit {compilation.LIMIT / 2**20:,.0f} MiB")
    if given := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        print(f"not used: $JAX_COMPILATION_CACHE_DIR is set, and JAX uses {given}")


def dump_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def use_parts(folder: Path | None) -> None:
    if folder is not None:
        from seqlab import catalogue

        catalogue.use_parts(folder)


COMMANDS = {
    "train": train,
    "launch": launch,
    "decode": decode,
    "force": force,
    "evaluate": evaluate,
    "score": score,
    "compare": compare,
    "analyze": analyze,
    "report": report,
    "inspect": inspect,
    "prepare": prepare,
    "list": list_parts,
    "show-batch": show_batch,
    "runs": list_runs,
    "fingerprint": fingerprint,
    "bisect": bisect,
    "average": average,
    "check": check,
    "import": import_run,
    "export": export,
    "cost": cost,
    "diagnose": diagnose,
    "cache": cache,
}


def main() -> None:
    """Runs a command; bad input is one line on standard error and exit code 2, a training that was asked to stop 75,
    an interrupt of anything else 130.
    """
    if sys.argv[1:2] == ["train"]:
        note_signals()  # first of all: what follows imports for seconds
    code, at_once = 0, False
    try:
        run_command(sys.argv[1:])
        sys.stdout.flush()  # here, where a reader that has gone is no error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: end quietly
    except (SeqlabError, OSError) as error:  # an OSError: a full disk, say
        print(f"seqlab: {error}", file=sys.stderr)
        code, at_once = 2, True
    except Stopped as stopped:
        print(f"seqlab: {stopped}", file=sys.stderr)
        code, at_once = STOPPED, not stopped.agreed
    except KeyboardInterrupt:
        print("seqlab: interrupted", file=sys.stderr)
        code, at_once = 130, True
    except Exception:
        if not connected():
            raise
        traceback.print_exc()
        code, at_once = 1, True
    # The usual end would wait for other processes, which do not come to it; and JAX, torn out of the midst of
    # compiling, may crash there.
    if at_once and (connected() or code == STOPPED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def connected() -> bool:
    """Whether this process is one of several."""
    return "seqlab.hosts" in sys.modules and sys.modules["seqlab.hosts"].connected()


def run_command(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
    elif arguments[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(COMMANDS)}"
        raise SeqlabError(f"no command {arguments[0]!r}: {hint}")
    elif arguments[0] in ("train", "launch", "prepare", "cost", "diagnose"):
        COMMANDS[arguments[0]](arguments[1:])
    else:
        tyro.cli(COMMANDS[arguments[0]], prog=f"seqlab {arguments[0]}", args=arguments[1:])


def help_text() -> str:
    lines = [
        "usage: seqlab COMMAND ...",
        "",
        "Sequence models: train, decode with beam search, cite a score.",
        "",
    ]
    lines += [f"  {name:12} {(command.__doc__ or '').split(chr(10))[0]}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "seqlab COMMAND --help says more."])


if __name__ == "__main__":
    main()
