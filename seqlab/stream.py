"""Streams of lines of any length: written in order as they come, in bounded memory, and gone on with where a killed
process left them.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import itertools
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from seqlab.checkpoint import digest_of
from seqlab.decode import Run
from seqlab.errors import SeqlabError
from seqlab.files import write_atomically
from seqlab.hosts import part_of
from seqlab.lines import Told, Written, forced_lines, word_links
from seqlab.text import open_output, read_lines, repairs_of
from seqlab.untrusted import read_json

WINDOW = 10_000  # lines read ahead and sorted by length


def sources_in(run: Run, lines: Iterable[str]) -> Iterator[str]:
    """Lines as sources: where the task names a separator, it stands for the newlines of a source."""
    separator = getattr(run.experiment.task, "separator", None)
    return (line.replace(separator, "\n") for line in lines) if separator else iter(lines)


class Format(NamedTuple):
    """How decoded texts are written: a text a line, or `nbest` lines "line ||| text ||| score" each, lines counted
    from 0; " ||| score" behind a text if `scores`; alignments "pharaoh", " ||| i-j ..." behind it, or "json", a line
    an object of all that is known.
    """

    nbest: int = 0
    scores: bool = False
    alignments: str | None = None

    @property
    def lines_each(self) -> int:
        """How many lines there are for a line of input."""
        return max(self.nbest, 1)

    def line(self, number: int, one: Written) -> str:
        text = one.text.replace("\n", " ")
        if self.alignments == "json":
            scores = {"score": one.score, "log_prob": one.log_prob}
            known = {"line": number, "text": text}
            known |= {name: value if math.isfinite(value) else None for name, value in scores.items()}
            if one.alignment is not None:
                source, target, best, shares = one.alignment
                links = [[i, j, round(share, 4)] for j, (i, share) in enumerate(zip(best, shares, strict=True))]
                known |= {"source": source, "target": target, "alignment": links}
            return json.dumps(known, ensure_ascii=False)
        parts = [str(number), text] if self.nbest else [text]
        if self.nbest or self.scores:
            parts.append(f"{one.score:.4f}")
        if self.alignments:
            links = word_links(one.alignment) if one.alignment is not None else []
            parts.append(" ".join(f"{i}-{j}" for i, j in links))
        return " ||| ".join(parts)


PLAIN = Format()


def decode_stream(
    run: Run,
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
        told = Told(
            columns.get("prefixes", ()),
            [[part for part in line.split("\t") if part.strip()] for line in columns.get("constraints", ())],
        )
        aligned = form.alignments is not None
        for written in run.write(columns["source"], form.lines_each, number + 1, told, aligned, **search):
            missing = [Written("", -math.inf, -math.inf)] * (form.nbest - len(written))
            for one in [*written, *missing]:
                yield form.line(number, one)
            number += 1


def decode_file(
    run: Run,
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


def digest(paths: Iterable[Path | None]) -> str:
    """SHA-256 of some files."""
    found = hashlib.sha256()
    for path in paths:
        if path is not None:
            with path.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
        found.update(b"/")
    return found.hexdigest()


@contextlib.contextmanager
def resumed_output(path: Path, identity: dict[str, Any], lines_each: int) -> Iterator[tuple[TextIO, int]]:
    """A text stream that goes on at the end of the file, and how many inputs' lines are there already, `lines_each`
    an input. What is left of a broken one is dropped. `identity`, kept beside the file, must be what it was.

    Raises `SeqlabError` for a file that was not begun this way, or of other options or another input.
    """
    record = path.with_name(path.name + ".resume")
    content = json.dumps(identity, sort_keys=True, default=str, indent=1)
    if path.suffix == ".gz":
        raise SeqlabError(f"{path}: only a plain file can be gone on with")
    if os.path.lexists(path) and not path.is_file():
        raise SeqlabError(f"{path} is no plain file: choose another --output")
    if record.exists():
        before = read_json(record, dict[str, Any])
        changed = [name for name, value in json.loads(content).items() if before.get(name) != value]
        if changed:
            raise SeqlabError(
                f"{path} was begun with another {' and '.join(changed)}: give what it was, or remove it and {record}"
            )
    elif path.exists():
        raise SeqlabError(f"{path} was not begun with --resume: remove it, or choose another --output")
    write_atomically(record, content)
    path.touch()
    with path.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SeqlabError(f"{path} is being written by another process") from None
        done, size, whole = 0, 0, 0
        for line in stream:
            if not line.endswith(b"\n"):
                break
            done, size = done + 1, size + len(line)
            whole = size if done % lines_each == 0 else whole
        stream.truncate(whole)
        stream.seek(whole)
        with io.TextIOWrapper(stream, encoding="utf-8") as text:
            yield text, done // lines_each


def force_stream(run: Run, sources: Iterable[str] | None, targets: Iterable[str], tokens: bool) -> Iterator[str]:
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
