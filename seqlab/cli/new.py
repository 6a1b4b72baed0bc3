"""`seqlab new`."""

import keyword
from importlib import resources
from pathlib import Path
from string import Template
from typing import Annotated, Literal, get_args

from tyro.conf import Positional, arg

from seqlab.system.errors import SeqlabError

Kind = Literal["config", "model", "encoder", "task", "dataset"]


def new(
    kind: Annotated[Positional[Kind], arg(metavar="KIND", help=f"Kind of file: {', '.join(get_args(Kind))}.")],
    name: Annotated[Positional[str], arg(metavar="NAME", help="Name of the file, such as my_model.")],
    parts: Annotated[Path, arg(metavar="DIR", help="Folder of custom parts in which to write a part.")] = Path(
        "parts"
    ),
) -> None:
    """Write a small working config or part to start from.

    Example: seqlab new model my_model
    """
    from seqlab.system.parts import built_in_names

    if not name.isidentifier() or not name.islower() or keyword.iskeyword(name):
        raise SeqlabError(f"{name!r} is not a valid name for a file: use lowercase letters, digits and underscores")
    if kind != "config" and name in built_in_names(f"{kind}s"):
        raise SeqlabError(f"seqlab already has a {kind} {name!r}: choose another name")
    path = Path(f"{name}.py") if kind == "config" else parts / f"{kind}s" / f"{name}.py"
    if path.exists():
        raise SeqlabError(f"{path} already exists: choose another name")
    template = resources.files("seqlab.cli").joinpath("templates", f"{kind}.txt").read_text(encoding="utf-8")
    class_name = "".join(map(str.capitalize, name.split("_")))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template(template).substitute(NAME=name, CLASS=class_name, PATH=path), encoding="utf-8")
    print(path)
    if kind == "config":
        print(f"next: seqlab train {path} --out runs/{name}")
    else:
        line = f"from seqlab_parts.{kind}s.{name} import {class_name}"
        print(f"next: write `{line}` in a config, and pass --parts {parts}")
