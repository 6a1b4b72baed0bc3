"""`seqlab list`."""

import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

from tyro.conf import Positional, arg

from seqlab.cli.options import Json, Parts
from seqlab.cli.start import dump, use_parts

Kind = Literal[
    "models",
    "encoders",
    "readers",
    "tasks",
    "codecs",
    "datasets",
    "metrics",
    "parametrizations",
    "rewards",
    "configs",
]


def list_parts(
    kind: Annotated[Positional[Kind], arg(metavar="KIND", help=f"Kind of parts: {', '.join(get_args(Kind))}.")],
    json: Json = False,
    parts: Parts = None,
) -> None:
    """List the parts of one kind, or the configs in configs/.

    Example: seqlab list models
    """
    use_parts(parts)
    if kind == "configs":
        descriptions = {str(path): first_line(path) for path in sorted(Path("configs").glob("*.py"))}
    elif kind == "metrics":
        from seqlab.metrics.registry import load_metrics

        metrics, errors = load_metrics()
        descriptions = {name: metric.description for name, metric in metrics.items()}
        descriptions |= {name: f"cannot be used: {error}" for name, error in errors.items()}
    else:
        from seqlab.system.parts import describe

        descriptions = describe(kind)
    if json:
        print(dump(descriptions))
        return
    if not descriptions:
        print(f"no {kind} found; give custom ones with --parts DIR", file=sys.stderr)
    width = max(map(len, descriptions), default=0)
    for name, line in descriptions.items():
        print(f"{name:{width}}  {line}")


def first_line(path: Path) -> str:
    import ast

    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
