"""TODO cli.inspection."""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from seqlab.cli.options import DATA_DIR, DataDir, Parts, Run
from seqlab.cli.start import dump, use_parts
from seqlab.system.errors import SeqlabError, at_least


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
    from seqlab.evaluation import show_batch

    at_least("--rows", rows, 1)
    epoch, _, index = (batch or "").partition("/")
    if step is None and batch is None:
        raise SeqlabError("which batch? Give --step N, from 1 on, or --batch EPOCH/INDEX, from 0 on")
    if batch is not None and (step is not None or not (epoch.isdecimal() and index.isdecimal())):
        raise SeqlabError(f"--batch is EPOCH/INDEX, from 0 on, in the place of --step, not {batch!r}")
    place = None if batch is None else (int(epoch), int(index))
    found = show_batch.facts(show_batch.training_batch(run, step or 0, data_dir, place), run, rows)
    print(dump(found) if json else show_batch.shown(found, shutil.get_terminal_size().columns))


def list_runs(
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="Where runs are, up to three folders down.")],
    json: bool = False,
) -> None:
    """Lists the runs in DIR: how far they are, their best scores, and how to go on with those that have died."""
    from seqlab.runs import listing

    found = listing.find(folder)
    if json:
        print(dump([listing.plain(one) for one in found]))
    elif found:
        width = os.get_terminal_size().columns if sys.stdout.isatty() else None
        print(listing.shown(found, time.time(), width))
    else:
        print(f"no runs in {folder}")


def fingerprint(run: Run, json: bool = False) -> None:
    """SHA-256 of the newest checkpoint: parameters, optimizer state, carry and step."""
    from seqlab.runs import checkpoint, manifest

    step = manifest.choose_step(run, "last")
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
    from seqlab.runs import bisect

    found = bisect.bisect(first, second)
    print(dump(found._asdict()) if json else bisect.shown(found))
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
    from seqlab.runs.averaging import average

    out = out or run.with_name(run.name + "-average")
    steps = average(run, last, out)
    print(f"{out}: the mean of steps {', '.join(map(str, steps))}")
