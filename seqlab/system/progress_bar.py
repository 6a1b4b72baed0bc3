"""Progress bars on a terminal, silence elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_showing: list[str] = []


@contextmanager
def progress(label: str, total: int | None, start: int = 0) -> Iterator[Callable[..., None]]:
    """Gives `advance(count=1, note="")`; shows share, rate, time left and the last note on standard error if it is a
    terminal.

    One bar at a time: what goes on inside another's stretch shows none.
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
