"""Progress bars, shown only on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_showing: list[str] = []


@contextmanager
def progress(label: str, total: int | None, start: int = 0) -> Iterator[Callable[..., None]]:
    """Yields `advance(count=1, note="")`, and shows the progress, speed, remaining time and last note on standard
    error if it is a terminal.

    There is one bar at a time: a nested call shows none.
    """
    if not sys.stderr.isatty() or _showing:
        yield lambda count=1, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bars = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    _showing.append(label)
    try:
        with bars:
            task = bars.add_task(label, total=total, completed=start, rate="", note="")

            def advance(count: int = 1, note: str = "") -> None:
                speed = bars.tasks[0].speed
                bars.update(task, advance=count, rate=f"{speed:,.1f}/s" if speed else "")
                if note:
                    bars.update(task, note=note)

            yield advance
    finally:
        _showing.remove(label)
