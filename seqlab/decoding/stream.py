"""Streams of lines of any length: written in order as they come, in bounded memory, and gone on with where a killed
process left them.
"""

import contextlib
import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seqlab.data.text_files import read_lines, repairs_of
from seqlab.decoding.decoded_text import DecodedText
from seqlab.decoding.log_probs import forced_lines
from seqlab.decoding.output_format import PLAIN, Format
from seqlab.decoding.requests import Constraints
from seqlab.decoding.resumed_output import digest, resumed_output
from seqlab.distributed.hosts import part_of
from seqlab.system.digests import digest_of
from seqlab.system.errors import SeqlabError
from seqlab.system.files import open_output

WINDOW = 10_000  # lines read ahead and sorted by length


def sources_in(run: Any, lines: Iterable[str]) -> Iterator[str]:
    """Lines as sources: where the task names a separator, it stands for the newlines of a source."""
    separator = getattr(run.experiment.task, "separator", None)
    return (line.replace(separator, "\n") for line in lines) if separator else iter(lines)


def decode_stream(
    run: Any,
    lines: Iterable[str],
    form: Format = PLAIN,
    prefixes: Iterable[str] | None = None,
    phrases: Iterable[str] | None = None,
    first: int = 1,
    **search: Any,
) -> Iterator[str]:
    """Output lines for a stream of input lines, in order; memory is bounded by a window of lines. `prefixes` are a
    text a line, `phrases` some a line with tabs between them. Raises where these are more or fewer than the lines.
    """
    beside = [name for name, given in (("prefixes", prefixes), ("constraints", phrases)) if given is not None]
    streams = [sources_in(run, lines), *(given for given in (prefixes, phrases) if given is not None)]
    rows, number = itertools.zip_longest(*streams), first - 1
    while window := list(itertools.islice(rows, WINDOW)):
        columns = dict(zip(("source", *beside), zip(*window, strict=True), strict=True))
        for name, column in columns.items():
            if None in column:
                raise SeqlabError(
                    f"there are {'more' if name == 'source' else 'fewer'} {' and '.join(beside)} than lines of input"
                )
        told = Constraints(
            columns.get("prefixes", ()),
            [[part for part in line.split("\t") if part.strip()] for line in columns.get("constraints", ())],
        )
        aligned = form.alignments is not None
        for written in run.write(columns["source"], form.lines_each, number + 1, told, aligned, **search):
            missing = [DecodedText("", -math.inf, -math.inf)] * (form.nbest - len(written))
            for one in [*written, *missing]:
                yield form.line(number, one)
            number += 1


def decode_file(
    run: Any,
    input: Path | None,
    output: Path | None,
    form: Format = PLAIN,
    *,
    prefixes: Path | None = None,
    phrases: Path | None = None,
    resume: bool = False,
    shard: str = "1/1",
    errors: str = "strict",
    **search: Any,
) -> None:
    """Decodes a file, or standard input, to a file, or to standard output. With `resume` the output is written as it
    goes, and gone on with; otherwise it is there once it is whole.
    """
    repairs = repairs_of(errors)
    source = input if input is not None else sys.stdin.buffer
    part = range(sys.maxsize)
    if shard != "1/1":
        counts = {path: sum(1 for _ in read_lines(path, repairs)) for path in (source, prefixes, phrases) if path}
        if len(set(counts.values())) > 1:
            raise SeqlabError(f"there are {counts[source]} lines of input, and not as many of what stands beside it")
        part = share_of(counts[source], shard)
        repairs = repairs_of(errors)
    with contextlib.ExitStack() as stack:
        done = 0
        if resume and output is not None:
            identity = {
                "input": digest([input, prefixes, phrases]),
                "parameters": digest_of(run.params),
                "model": repr(run.model),
                "search": dataclasses.asdict(run.search(**search)),
                "format": form._asdict(),
                "shard": shard,
                "errors": errors,
            }
            stream, done = stack.enter_context(resumed_output(output, identity, form.lines_each))
        else:
            stream = stack.enter_context(open_output(output))
        begin = part.start + done

        def lines_of(path: Any) -> Iterator[str]:
            return itertools.islice(read_lines(path, repairs), begin, part.stop)

        beside = [path and lines_of(path) for path in (prefixes, phrases)]
        for line in decode_stream(run, lines_of(source), form, *beside, first=begin + 1, **search):
            stream.write(line + "\n")
    for kind, count in (repairs or {}).items():
        print(f"seqlab: lines mended ({kind}): {count}", file=sys.stderr)


def share_of(lines: int, shard: str) -> range:
    """The lines, from 0 on, of shard "I/N", the I-th of N; those of all shards, one behind the other, are all."""
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise SeqlabError(f"--shard is I/N, the I-th of N, not {shard!r}")
    return part_of(lines, int(index) - 1, int(count))


def force_stream(run: Any, sources: Iterable[str] | None, targets: Iterable[str], tokens: bool) -> Iterator[str]:
    """A line for each target: its log-probability given its source; if `tokens`, then " ||| token value" for each.

    Raises `SeqlabError` where there are not as many sources as targets; a language model has none.
    """
    task, tokenizers = run.experiment.task, run.tokenizers
    if ("source" in task.columns) != (sources is not None):
        raise SeqlabError(
            f"{type(task).__name__} has {'no source' if sources is not None else 'a source: give --input'}"
        )
    given = itertools.repeat("") if sources is None else sources_in(run, sources)
    pairs = zip(given, targets, strict=False) if sources is None else itertools.zip_longest(given, targets)
    number = 1
    while window := list(itertools.islice(pairs, WINDOW)):
        if any(None in pair for pair in window):
            raise SeqlabError("there are not as many sources as targets")
        columns = zip(*window, strict=True)
        found = forced_lines(task, run.experiment.model, run.params, tokenizers, *columns, first=number)
        number += len(window)
        for ids, log_probs in found:
            parts = [f"{log_probs.sum():.4f}"]
            if tokens:
                names = map(tokenizers["target"].piece, ids)
                parts += [f"{name} {value:.4f}" for name, value in zip(names, log_probs, strict=True)]
            yield " ||| ".join(parts)
