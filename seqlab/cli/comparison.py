"""TODO cli.comparison."""

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
from seqlab.cli.start import check_output, dump, dump_line, load_writer, start_computing, use_parts
from seqlab.system.errors import SeqlabError


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
    from seqlab.evaluation.compare import compared, shown
    from seqlab.evaluation.report import plain
    from seqlab.evaluation.texts import gather

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
    from seqlab.evaluation.analysis import analyze, shown
    from seqlab.evaluation.report import plain
    from seqlab.system import files

    check_output(output)
    start_computing()
    loaded = load_writer(run, checkpoint).searching(**dataclasses.asdict(search))
    found = analyze(loaded, split, data_dir, **dataclasses.asdict(effort))
    if output is not None:
        with files.open_output(output) as stream:
            stream.writelines(dump_line(plain(one)) + "\n" for one in found.lines)
    print(dump({**plain(found), "lines": len(found.lines)}) if json else shown(found))
