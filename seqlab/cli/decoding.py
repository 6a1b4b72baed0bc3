"""TODO cli.decoding."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from seqlab.cli.options import ALONE, NO_SEARCH, Cluster, Parts, Run, SearchOptions, Which
from seqlab.cli.start import check_output, load_writer, start_computing, use_parts
from seqlab.system.errors import SeqlabError


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
    from seqlab.decoding.output_format import Format
    from seqlab.decoding.stream import decode_file, decode_stream
    from seqlab.distributed.hosts import is_process_zero
    from seqlab.runs.ensemble import together
    from seqlab.runs.loading import load

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
        output if is_process_zero() else Path(os.devnull),
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
    from seqlab.data import text_files
    from seqlab.decoding.stream import force_stream
    from seqlab.system import files

    check_output(output)
    start_computing()
    loaded = load_writer(run, checkpoint)
    sources = None if input is None else text_files.read_lines(input)
    with files.open_output(output) as stream:
        stream.writelines(
            line + "\n" for line in force_stream(loaded, sources, text_files.read_lines(target), tokens)
        )


def read_typed() -> str | None:
    try:
        return input("> ")
    except EOFError:
        return None
