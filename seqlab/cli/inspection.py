"""`seqlab inspect`, `seqlab report` and `seqlab show-batch`."""

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from seqlab.cli.options import (
    DEFAULT_ANALYSIS,
    DEFAULT_PLACES,
    NO_SEARCH,
    AnalysisOptions,
    Checkpoint,
    Json,
    Parts,
    PlaceOptions,
    RunFolder,
    SearchOptions,
    Split,
)
from seqlab.cli.start import check_output, dump, start_computing, use_parts
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError


def inspect(
    run: RunFolder,
    text: Annotated[str, arg(help="Input text. Separate the sentences of a document with tabs.")],
    out: Annotated[Path | None, arg(metavar="F", help="Also write an HTML page.")] = None,
    search: SearchOptions = NO_SEARCH,
    checkpoint: Checkpoint = "best",
    json: Json = False,
    parts: Parts = None,
) -> None:
    """Show the search for one input: the tree of hypotheses and the attention weights.

    Search options that are not given keep the run's values.

    Example: seqlab inspect runs/quickstart --text "3 hours ago" --out page.html
    """
    use_parts(parts)
    from seqlab.decoding.stream import sources_in
    from seqlab.evaluation.inspection import format_inspection, inspect
    from seqlab.evaluation.plain_values import to_plain
    from seqlab.evaluation.report import page
    from seqlab.runs.loading import load

    check_output(out)
    start_computing()
    loaded = load(run, checkpoint).with_search(**dataclasses.asdict(search))
    inspection = inspect(loaded, next(sources_in(loaded.experiment.task, [text])))
    if out is not None:
        title = text if len(text) <= 72 else f"{text[:70]} …"
        write_page(out, page({"title": title, "made": f"seqlab inspect {run}", "inspection": inspection}))
    print(dump(to_plain(inspection)) if json else format_inspection(inspection))


def report(
    runs: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="RUN", help="Runs of the same task.", help_behavior_hint="(required)"),
    ],
    out: Annotated[Path, arg(metavar="F", help="Output file, an HTML page.")],
    split: Split = "test",
    effort: AnalysisOptions = DEFAULT_ANALYSIS,
    checkpoint: Checkpoint = "best",
    places: PlaceOptions = DEFAULT_PLACES,
) -> None:
    """Write an HTML report: curves, scores, errors, examples and attention.

    Example: seqlab report runs/quickstart --out report.html
    """
    use_parts(places.parts)
    from seqlab.evaluation.report import report
    from seqlab.runs.loading import load

    if not runs:
        raise SeqlabError("no runs given: name the runs to report on")
    check_output(out)
    start_computing()
    loaded = [load(run, checkpoint) for run in runs]
    write_page(out, report(loaded, split, places.data_dir, **dataclasses.asdict(effort)))


def write_page(path: Path, content: str) -> None:
    from seqlab.system.files import write_atomically

    write_atomically(path, content)
    print(f"{path}: {len(content.encode()) / 2**20:.2f} MiB", file=sys.stderr)


def show_batch(
    run: RunFolder,
    step: Annotated[int | None, arg(metavar="N", help="Step whose batch to show; the first step is 1.")] = None,
    batch: Annotated[
        str | None,
        arg(
            metavar="EPOCH/INDEX",
            help="Batch to show, such as a skipped one; cannot be combined with --step. Both numbers start at 0.",
        ),
    ] = None,
    rows: Annotated[int, arg(metavar="K", help="Number of rows to show.")] = 3,
    json: Json = False,
    places: PlaceOptions = DEFAULT_PLACES,
) -> None:
    """Show a training batch: tokens, padding, positions, targets and weights.

    Example: seqlab show-batch runs/quickstart --step 1
    """
    use_parts(places.parts)
    from seqlab.evaluation import show_batch

    check_minimum("--rows", rows, 1)
    epoch, _, index = (batch or "").partition("/")
    if step is None and batch is None:
        raise SeqlabError(
            "no batch is named: give --step N (the first step is 1) or --batch EPOCH/INDEX (both start at 0)"
        )
    if batch is not None and step is not None:
        raise SeqlabError("--step and --batch both name a batch: leave out --step or --batch")
    if batch is not None and not (epoch.isdecimal() and index.isdecimal()):
        raise SeqlabError(f"--batch must be EPOCH/INDEX, two numbers that start at 0, not {batch!r}")
    place = None if batch is None else (int(epoch), int(index))
    facts = show_batch.facts(show_batch.training_batch(run, step or 0, places.data_dir, place), run, rows)
    print(dump(facts) if json else show_batch.format_batch(facts, shutil.get_terminal_size().columns))
