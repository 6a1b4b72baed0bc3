"""`seqlab list`."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from seqlab.cli.options import Parts
from seqlab.cli.start import dump, use_parts


def list_parts(
    kind: Positional[Literal["models", "tasks", "datasets", "configs", "metrics"]],
    json: bool = False,
    parts: Parts = None,
) -> None:
    """Lists models, tasks, datasets, configs or metrics."""
    use_parts(parts)
    if kind == "configs":
        descriptions = {str(path): first_line(path) for path in sorted(Path("configs").glob("*.py"))}
    elif kind == "metrics":
        from seqlab.metrics.registry import all_metrics

        descriptions = {name: metric.description for name, metric in all_metrics().items()}
    else:
        from seqlab.system.parts import describe

        descriptions = describe(kind)
    if json:
        print(dump(descriptions))
        return
    width = max(map(len, descriptions), default=0)
    for name, line in descriptions.items():
        print(f"{name:{width}}  {line}")


def first_line(path: Path) -> str:
    import ast

    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
