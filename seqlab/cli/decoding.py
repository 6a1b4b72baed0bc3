"""`seqlab decode`, `seqlab predict` and `seqlab logprob`."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from seqlab.cli.options import NO_SEARCH, SINGLE_PROCESS, Checkpoint, Parts, ProcessOptions, RunFolder, SearchOptions
from seqlab.cli.start import check_input, check_output, load_generator, start_computing, use_parts
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError

FLUSH_MS = 100
FlushMilliseconds = Annotated[
    int, arg(metavar="N", help="Process the waiting lines of stdin when no new line arrives for N milliseconds.")
]

OutputFile = Annotated[
    Path | None,
    arg(metavar="F", help="Output file; compressed if it ends in .gz.", help_behavior_hint="(default: stdout)"),
]


@dataclasses.dataclass(frozen=True)
class Files:
    """The input and output of decoding."""

    input: Annotated[
        Path | None,
        arg(
            metavar="F",
            help="Input file, one text per line; may be a .gz file.",
            help_behavior_hint="(default: stdin)",
        ),
    ] = None
    output: OutputFile = None
    prefixes: Annotated[
        Path | None, arg(metavar="F", help="Prefixes that the outputs must start with, one per line.")
    ] = None
    constraints: Annotated[
        Path | None,
        arg(metavar="F", help="Phrases that each output must contain, separated by tabs, one line per input line."),
    ] = None
    resume: Annotated[bool, arg(help="Continue an interrupted --output file.")] = False
    shard: Annotated[
        str, arg(metavar="I/N", help="Decode only part I of N of the input. Concatenate the outputs with cat.")
    ] = "1/1"
    flush_ms: FlushMilliseconds = FLUSH_MS
    errors: Annotated[
        Literal["strict", "replace"], arg(help="strict: stop at a malformed line. replace: repair it.")
    ] = "strict"


@dataclasses.dataclass(frozen=True)
class Output:
    """The format of the output lines."""

    nbest: Annotated[
        int, arg(help='Write the N best outputs for each line, as "line number ||| output ||| score".')
    ] = 0
    scores: Annotated[bool, arg(help='Append " ||| score" to each line.')] = False
    alignments: Annotated[
        Literal["pharaoh", "json"] | None,
        arg(
            help='pharaoh: append word alignments from attention weights, " ||| i-j ...". '
            "json: write JSON lines with the weights by token."
        ),
    ] = None


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of decoding."""

    checkpoint: Checkpoint = "best"
    ensemble: Annotated[tuple[Path, ...], arg(metavar="RUN", help="Further runs to combine with RUN.")] = ()
    mean: Annotated[str, arg(help="What an ensemble averages: probabilities or log_probabilities.")] = "probabilities"
    lm: Annotated[
        Path | None, arg(metavar="RUN", help="Language model with the same tokenizer, to combine with RUN.")
    ] = None
    lm_weight: Annotated[float, arg(help="Weight of the language model's log-probabilities.")] = 0.1
    adapter: Annotated[Path | None, arg(metavar="RUN2", help="Run of an adapter whose base is RUN.")] = None
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        arg(help="Data type of matrix products with parameters.", help_behavior_hint="(default: the run's value)"),
    ] = None


STANDARD_FILES, PLAIN_TEXT, ONE_MODEL = Files(), Output(), Models()


def decode(
    run: RunFolder,
    files: Annotated[Files, arg(name="")] = STANDARD_FILES,
    search: SearchOptions = NO_SEARCH,
    output: Annotated[Output, arg(name="")] = PLAIN_TEXT,
    models: Annotated[Models, arg(name="")] = ONE_MODEL,
    cluster: ProcessOptions = SINGLE_PROCESS,
    parts: Parts = None,
) -> None:
    """Decode text with beam search, one output per input line.

    Search options that are not given keep the run's values.

    Example: seqlab decode runs/quickstart --input input.txt --output output.txt --beam 5
    """
    use_parts(parts)
    from seqlab.decoding.output_format import Format
    from seqlab.decoding.stream import DecodingFiles, LineStreams, decode_file, decode_stream
    from seqlab.distributed.hosts import is_process_zero

    check_files(files, cluster != SINGLE_PROCESS)
    pause = pause_of(files.input, files.flush_ms)
    start_computing(cluster)
    loaded = load_models(run, models)
    settings = loaded.search_config(**dataclasses.asdict(search))
    if output.nbest < 0 or output.nbest > settings.beam:
        message = f"--nbest {output.nbest} needs --beam {output.nbest} or more"
        raise SeqlabError(message if output.nbest > 0 else "--nbest must be 0 (plain text) or more")
    if output.scores and (output.nbest or output.alignments == "json"):
        option = "--nbest" if output.nbest else "--alignments json"
        raise SeqlabError(f"{option} writes scores already: leave out --scores")
    form = Format(**dataclasses.asdict(output))
    if files.input is None and files.output is None and sys.stdin.isatty():
        if files.prefixes or files.constraints:
            raise SeqlabError("--prefixes and --constraints need --input FILE, or lines from a pipe")
        for line in iter(read_typed, None):
            print("\n".join(decode_stream(loaded.trained, settings, LineStreams([line]), form)))
        return
    written = files.output if is_process_zero() else Path(os.devnull)
    paths = files.input, written, files.prefixes, files.constraints
    decode_file(loaded.trained, settings, DecodingFiles(*paths, files.resume, files.shard, files.errors), form, pause)


def pause_of(path: Path | None, flush_ms: int) -> float | None:
    """Returns the number of seconds after which waiting lines of standard input are decoded, or None for a file."""
    check_minimum("--flush-ms", flush_ms, 1)
    if path is None:
        return flush_ms / 1000
    if flush_ms != FLUSH_MS:
        raise SeqlabError("--flush-ms applies only to standard input: leave out --flush-ms or --input")
    return None


def check_files(files: Files, is_cluster: bool) -> None:
    """Raises `SeqlabError` for files that cannot be read or written, and for options that need others."""
    for name in ("input", "prefixes", "constraints"):
        check_input(getattr(files, name), f"--{name}")
    if (files.resume or files.shard != "1/1") and (files.input is None or not files.input.is_file()):
        raise SeqlabError(f"--{'resume' if files.resume else 'shard'} needs an input file: give --input")
    if files.resume and files.output is None:
        raise SeqlabError("--resume needs an output file: give --output")
    if is_cluster and (files.input is None or files.resume):
        raise SeqlabError(
            "several processes need --input and do not support --resume; to resume, run each with a --shard I/N"
        )
    check_output(files.output, files.input, files.prefixes, files.constraints)


def load_models(run: Path, models: Models) -> Any:
    """Returns the run, or its ensemble with further runs and a language model."""
    from seqlab.runs.ensemble import combine
    from seqlab.runs.loading import load

    if models.adapter is None:
        loaded = load_generator(run, models.checkpoint, models.dtype)
    else:
        loaded = load_generator(models.adapter, models.checkpoint, models.dtype, base=run)
    if not models.ensemble and models.lm is None:
        unused = {"--mean": models.mean != Models.mean, "--lm-weight": models.lm_weight != Models.lm_weight}
        for option, given in unused.items():
            if given:
                raise SeqlabError(f"{option} needs {'--ensemble' if option == '--mean' else '--lm'}")
        return loaded
    members = [load(member, models.checkpoint, models.dtype) for member in models.ensemble]
    language_model = models.lm and load(models.lm, models.checkpoint, models.dtype)
    return combine([loaded, *members], models.mean, language_model, models.lm_weight)


def read_typed() -> str | None:
    try:
        return input("> ")
    except EOFError:
        return None


def predict(
    run: RunFolder,
    input: Annotated[
        Path | None,
        arg(
            metavar="F",
            help="Input file, one text per line, or a .tsv or .jsonl table with the task's columns.",
            help_behavior_hint="(default: stdin)",
        ),
    ] = None,
    output: OutputFile = None,
    nbest: Annotated[
        int, arg(help='Write the N best predictions for each example, as "line number ||| prediction ||| score".')
    ] = 1,
    json: Annotated[bool, arg(help="Write JSON lines with scores and details.")] = False,
    flush_ms: FlushMilliseconds = FLUSH_MS,
    checkpoint: Checkpoint = "best",
    parts: Parts = None,
) -> None:
    """Predict classes, tags or numbers, one output per example.

    Example: seqlab predict runs/section --input documents.txt --json
    """
    use_parts(parts)
    from seqlab.decoding.predictions import examples_in, prediction_lines
    from seqlab.runs.loading import load
    from seqlab.system.files import open_output

    check_output(output, input)
    check_minimum("--nbest", nbest, 1)
    check_input(input, "--input")
    pause = pause_of(input, flush_ms)
    start_computing()
    loaded = load(run, checkpoint)
    if loaded.experiment.task.searches:
        raise SeqlabError(f"{run} generates text: use seqlab decode")
    examples = examples_in(loaded.trained.task, sys.stdin.buffer if input is None else input)
    with open_output(output) as stream:
        for line in prediction_lines(loaded.trained, examples, nbest, json, pause):
            print(line, file=stream, flush=pause is not None)


def logprob(
    run: RunFolder,
    target: Annotated[Path, arg(metavar="G", help="Target texts, one per line.")],
    input: Annotated[
        Path | None, arg(metavar="F", help="Source texts, one per line; leave out for a language model.")
    ] = None,
    output: OutputFile = None,
    tokens: Annotated[bool, arg(help='Append " ||| token log-probability" for each token.')] = False,
    checkpoint: Checkpoint = "best",
    parts: Parts = None,
) -> None:
    """Write the log-probabilities of given texts under a model.

    Example: seqlab logprob runs/quickstart --input input.txt --target output.txt
    """
    use_parts(parts)
    from seqlab.data.text_files import read_lines
    from seqlab.decoding.stream import log_prob_stream
    from seqlab.system.files import open_output

    check_output(output, target, input)
    start_computing()
    loaded = load_generator(run, checkpoint)
    sources = None if input is None else read_lines(input)
    with open_output(output) as stream:
        lines = log_prob_stream(loaded.trained, sources, read_lines(target), tokens)
        stream.writelines(line + "\n" for line in lines)
