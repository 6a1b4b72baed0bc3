"""`seqlab runs`, `fingerprint`, `bisect`, `average`, `migrate` and `cache`."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from seqlab.cli.options import Json, Parts, RunFolder
from seqlab.cli.start import dump, use_parts


def list_runs(
    folder: Annotated[
        Positional[Path], arg(metavar="DIR", help="Folder to search for runs, up to three levels deep.")
    ],
    json: Json = False,
) -> None:
    """List the runs in DIR: progress, best scores, and how to resume interrupted runs.

    Example: seqlab runs runs
    """
    from seqlab.runs import listing

    runs = listing.find_runs(folder)
    if json:
        print(dump([listing.to_json(run) for run in runs]))
    elif runs:
        width = os.get_terminal_size().columns if sys.stdout.isatty() else None
        print(listing.format_table(runs, time.time(), width))
    else:
        print(f"no runs in {folder}")


def fingerprint(run: RunFolder, json: Json = False) -> None:
    """Print the SHA-256 of the latest checkpoint: parameters, optimizer state, recurrent carry and step.

    Example: seqlab fingerprint runs/quickstart
    """
    from seqlab.runs import checkpoint, manifest

    step = manifest.choose_step(run, "last")
    digest = checkpoint.fingerprint(run, step)
    print(dump({"step": step, "sha256": digest}) if json else digest)


def bisect(
    first: RunFolder,
    second: RunFolder,
    json: Json = False,
    parts: Parts = None,
) -> None:
    """Find the first step at which two runs differ. Exit with 1 if they differ and with 0 if they agree.

    Train both runs with --hash-every N. Only the steps that both runs have hashed are compared.

    Example: seqlab bisect runs/first runs/second
    """
    use_parts(parts)
    from seqlab.runs import bisect

    bisection = bisect.bisect(first, second)
    print(dump(bisection._asdict()) if json else bisect.format_bisection(bisection))
    if bisection.step is not None:
        sys.exit(1)


def average(
    run: RunFolder,
    last: Annotated[int, arg(metavar="N", help="Number of most recent checkpoints to average.")],
    out: Annotated[
        Path | None, arg(metavar="RUN", help="Folder of the new run.", help_behavior_hint="(default: RUN-average)")
    ] = None,
    parts: Parts = None,
) -> None:
    """Average the parameters of the last N checkpoints into a new run.

    Example: seqlab average runs/quickstart --last 3
    """
    use_parts(parts)
    from seqlab.runs.averaging import average

    named = run if run.name not in ("", "..") else run.resolve()
    out = out or named.with_name(named.name + "-average")
    steps = average(run, last, out)
    print(f"{out}: mean of steps {', '.join(map(str, steps))}")


def migrate(
    run: RunFolder,
    out: Annotated[Path, arg(metavar="NEW_RUN", help="Folder of the converted run.")],
    parts: Parts = None,
) -> None:
    """Convert a run of an older version of seqlab: experiment, tokenizers, parameters and optimizer state.

    Example: seqlab migrate runs/old --out runs/new
    """
    use_parts(parts)
    from seqlab.runs.migration import migrate

    steps = migrate(run, out, say=print)
    print(f"{out}: checkpoints {', '.join(map(str, steps)) or 'none'}")


def cache(clear: Annotated[bool, arg(help="Remove all compiled programs.")] = False) -> None:
    """Show the folder, number and size of cached compiled programs, or remove them.

    Example: seqlab cache --clear
    """
    from seqlab.system import compilation

    usage = compilation.clear() if clear else compilation.usage()
    print(f"{compilation.cache_folder()}{': removed' if clear else ''}")
    print(
        f"programs {usage.programs:,}, size {usage.size / 2**20:.1f} MiB, limit {compilation.LIMIT / 2**20:,.0f} MiB"
    )
    if given := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        print(f"not used: $JAX_COMPILATION_CACHE_DIR is set, so JAX uses {given}")
