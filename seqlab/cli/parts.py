"""TODO cli.parts."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from seqlab.cli.options import Parts
from seqlab.cli.start import dump, use_parts


def list_parts(
    what: Positional[Literal["models", "tasks", "datasets", "configs", "metrics"]],
    json: bool = False,
    parts: Parts = None,
) -> None:
    """Lists models, tasks, datasets, configs or metrics."""
    use_parts(parts)
    if what == "configs":
        found = {str(path): first_line(path) for path in sorted(Path("configs").glob("*.py"))}
    elif what == "metrics":
        from seqlab.metrics.registry import METRICS

        found = {name: metric.what for name, metric in METRICS.items()}
    else:
        from seqlab import catalogue

        found = catalogue.describe(what)
    if json:
        print(dump(found))
        return
    width = max(map(len, found), default=0)
    for name, line in found.items():
        print(f"{name:{width}}  {line}")


def first_line(path: Path) -> str:
    import ast

    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
