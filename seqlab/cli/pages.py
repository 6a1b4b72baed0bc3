"""TODO cli.pages."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from seqlab.cli.options import (
    ALL_OF_IT,
    DATA_DIR,
    NO_SEARCH,
    AnalysisOptions,
    DataDir,
    Parts,
    Run,
    SearchOptions,
    Which,
)
from seqlab.cli.start import check_output, dump, start_computing, use_parts
from seqlab.system.errors import SeqlabError


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
    from seqlab.evaluation.report import report
    from seqlab.runs.loading import load

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
    from seqlab.decoding.stream import sources_in
    from seqlab.evaluation.inspection import inspect, shown
    from seqlab.evaluation.report import page, plain
    from seqlab.runs.loading import load

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
    from seqlab.system.files import write_atomically

    write_atomically(path, content)
    print(f"{path}: {len(content.encode()) / 2**20:.2f} MiB", file=sys.stderr)
