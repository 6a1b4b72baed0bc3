"""Decoding of streams of any length: in order, in bounded memory, and resumable after an interruption."""

import contextlib
import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.config import Search
from seqlab.data.task import Task
from seqlab.data.text_files import make_repairs, read_lines
from seqlab.decoding.decoded_text import DecodedText
from seqlab.decoding.lines import decode_lines
from seqlab.decoding.log_probs import line_log_probs
from seqlab.decoding.output_format import PLAIN, Format
from seqlab.decoding.requests import Constraints, Lines
from seqlab.decoding.resumed_output import digest, resumed_output
from seqlab.decoding.trained import TrainedModel
from seqlab.decoding.windows import WINDOW, windows_of
from seqlab.distributed.hosts import part_of
from seqlab.system.digests import digest_of
from seqlab.system.errors import SeqlabError
from seqlab.system.files import open_output
from seqlab.system.progress_bar import progress


class DecodingFiles(NamedTuple):
    """The files of a decoding; None for standard input and output.

    `prefixes` has one text per line, `phrases` has phrases separated by tabs on each line. With `resume` the output
    is written during decoding, and continued after an interruption; otherwise it appears once it is complete. `shard`
    "I/N" is the I-th of N parts of the input. `errors` is "strict" or "replace", for lines that are not UTF-8.
    """

    input: Path | None = None
    output: Path | None = None
    prefixes: Path | None = None
    phrases: Path | None = None
    resume: bool = False
    shard: str = "1/1"
    errors: str = "strict"


class LineStreams(NamedTuple):
    """Input lines, counted from `first`, and for each line a prefix and phrases separated by tabs, or None."""

    lines: Iterable[str]
    prefixes: Iterable[str] | None = None
    phrases: Iterable[str] | None = None
    first: int = 1


def sources_in(task: Task, lines: Iterable[str]) -> Iterator[str]:
    """Returns lines as sources: the task's separator, if it has one, becomes the newlines of a source."""
    separator = task.separator
    return (line.replace(separator, "\n") for line in lines) if separator else iter(lines)


def decode_stream(
    trained: TrainedModel, search: Search, streams: LineStreams, form: Format = PLAIN, pause: float | None = None
) -> Iterator[str]:
    """Yields output lines for a stream of input lines, in order. Memory is bounded by a window of lines. With a
    `pause`, a window also ends when no line arrives for this many seconds.

    Raises `SeqlabError` if the number of prefixes or phrases differs from the number of lines.
    """
    number = streams.first
    for window in windows(trained, streams, pause):
        with progress("decoding", len(window.texts)) as advance:
            decoded = decode_lines(
                trained, window._replace(first=number), search,
                count=form.lines_each, aligned=form.alignments is not None, progress=advance,
            )  # fmt: skip
        for texts in decoded:
            missing = [DecodedText("", -math.inf, -math.inf)] * (form.nbest - len(texts))
            for text in [*texts, *missing]:
                yield form.line(number - 1, text)
            number += 1


def windows(trained: TrainedModel, streams: LineStreams, pause: float | None) -> Iterator[Lines]:
    """Yields the lines of a stream in windows, with their constraints."""
    options = {"prefixes": streams.prefixes, "constraints": streams.phrases}
    options = {name: stream for name, stream in options.items() if stream is not None}
    rows = itertools.zip_longest(sources_in(trained.task, streams.lines), *options.values())
    for window in windows_of(rows, pause, WINDOW):
        columns = dict(zip(("source", *options), zip(*window, strict=True), strict=True))
        for name in options:
            if None in columns[name]:
                raise SeqlabError(f"--{name} has fewer lines than the input: write an empty line for no {name}")
        if None in columns["source"]:
            raise SeqlabError(f"--{' and --'.join(options)}: more lines than the input")
        phrases = [split_phrases(line) for line in columns.get("constraints", ())]
        yield Lines(columns["source"], constraints=Constraints(columns.get("prefixes", ()), phrases))


def split_phrases(line: str) -> list[str]:
    return [phrase for phrase in line.split("\t") if phrase.strip()]


def decode_file(
    trained: TrainedModel, search: Search, files: DecodingFiles, form: Format = PLAIN, pause: float | None = None
) -> None:
    """Decodes a file, or a shard of it, to a file. Reports the number of repaired lines to standard error. `pause` is
    as in `windows_of`.
    """
    source: Any = files.input if files.input is not None else sys.stdin.buffer
    inputs, part = (source, files.prefixes, files.phrases), range(sys.maxsize)
    if files.shard != "1/1":
        part = shard_of(inputs, files)
    repairs = make_repairs(files.errors)
    with contextlib.ExitStack() as stack:
        done = 0
        if files.resume and files.output is not None:
            identity = identity_of(trained, search, files, form)
            stream, done = stack.enter_context(resumed_output(files.output, identity, form.lines_each))
        else:
            stream = stack.enter_context(open_output(files.output))
        begin = part.start + done
        readers: list[Any] = [path and read_lines(path, repairs) for path in inputs]
        for reader in filter(None, readers):
            next(itertools.islice(reader, begin, begin), None)  # skips lines of other shards and of an earlier run
        if repairs:
            repairs.clear()  # only repairs of decoded lines are reported
        lines = [reader and itertools.islice(reader, max(part.stop - begin, 0)) for reader in readers]
        for line in decode_stream(trained, search, LineStreams(*lines, first=begin + 1), form, pause):
            stream.write(line + "\n")
            if pause is not None:
                stream.flush()
    for kind, count in (repairs or {}).items():
        print(f"seqlab: lines repaired ({kind}): {count}", file=sys.stderr)


def identity_of(trained: TrainedModel, search: Search, files: DecodingFiles, form: Format) -> dict[str, Any]:
    """Returns all values that the output depends on."""
    return {
        "input": digest([files.input, files.prefixes, files.phrases]),
        "parameters": digest_of(trained.params),
        "model": repr(trained.model),
        "search": dataclasses.asdict(search),
        "format": form._asdict(),
        "shard": files.shard,
        "errors": files.errors,
    }


def shard_of(inputs: Sequence[Any], files: DecodingFiles) -> range:
    """Returns the lines of the shard of some parallel files. Raises `SeqlabError` for files of unequal length."""
    repairs = make_repairs(files.errors)
    counts = {path: sum(1 for _ in read_lines(path, repairs)) for path in inputs if path}
    if len(set(counts.values())) > 1:
        raise SeqlabError(f"--prefixes and --constraints must have as many lines as the input, {counts[inputs[0]]}")
    return shard_range(counts[inputs[0]], files.shard)


def shard_range(lines: int, shard: str) -> range:
    """Returns the lines, from 0, of shard "I/N", the I-th of N. The shards in order cover all lines."""
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise SeqlabError(f"--shard must be I/N, the I-th of N parts, not {shard!r}")
    return part_of(lines, int(index) - 1, int(count))


def log_prob_stream(
    trained: TrainedModel, sources: Iterable[str] | None, targets: Iterable[str], tokens: bool
) -> Iterator[str]:
    """Yields a line for each target: its log-probability given its source. With `tokens`, each token adds " ||| token
    value".

    Raises `SeqlabError` if the numbers of sources and targets differ, or if a language model has sources.
    """
    task, tokenizer = trained.task, trained.codecs["target"]
    if ("source" in task.columns) != (sources is not None):
        mismatch = "needs source texts: give --input FILE" if sources is None else "has no source: leave out --input"
        raise SeqlabError(f"{type(task).__name__} {mismatch}")
    if sources is None:
        pairs = zip(itertools.repeat(""), targets, strict=False)
    else:
        pairs = itertools.zip_longest(sources_in(task, sources), targets)
    number = 1
    for window in windows_of(pairs, None, WINDOW):
        if any(None in pair for pair in window):
            raise SeqlabError("the numbers of sources and targets differ: give one source per target")
        for ids, log_probs in line_log_probs(trained, *zip(*window, strict=True), first=number):
            parts = [f"{log_probs.sum():.4f}"]
            if tokens:
                pieces = map(tokenizer.names.__getitem__, ids)
                parts += [f"{piece} {value:.4f}" for piece, value in zip(pieces, log_probs, strict=True)]
            yield " ||| ".join(parts)
        number += len(window)
