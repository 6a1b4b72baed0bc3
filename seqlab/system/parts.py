"""Parts, found by file name: seqlab/FOLDER/NAME.py, and DIR/FOLDER/NAME.py in a user's folders."""

import difflib
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from seqlab.system.errors import SeqlabError

# The names that a file of each kind defines.
REQUIRED_NAMES = {
    "models": ("TINY",),
    "datasets": ("DATASET",),
    "tasks": ("TASK",),
    "metrics": ("METRICS",),
    "codecs": ("CODEC",),
    "readers": ("TINY",),
    "encoders": ("TINY",),
    "parametrizations": ("PARAMETRIZATION",),
    "rewards": ("REWARD",),
}
PART_FOLDERS = tuple(REQUIRED_NAMES)
SHARED = {  # files that are not parts
    "metrics": ("metric", "registry"),
    "codecs": ("codec",),
    "parametrizations": ("parametrization",),
    "rewards": ("reward",),
}
_folders: list[Path] = []


def use_parts(folder: Path) -> None:
    """Adds a user's folder of parts, whose files are Python and are executed: DIR/models/x.py is then the module
    `seqlab_parts.models.x`, which a config may import from. Raises `SeqlabError` if the folder has none.
    """
    if not any((folder / kind).is_dir() for kind in PART_FOLDERS):
        raise SeqlabError(f"{folder}: no parts; expected {', '.join(f'{folder}/{kind}/' for kind in PART_FOLDERS)}")
    folder = folder.resolve()
    if folder not in _folders:
        _folders.append(folder)
        package = sys.modules.setdefault("seqlab_parts", ModuleType("seqlab_parts"))
        package.__path__ = [str(folder) for folder in _folders]


def built_in_names(kind: str) -> set[str]:
    """The names of seqlab's own parts of a kind."""
    package = importlib.import_module(f"seqlab.{kind}")
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return {name for name in modules - {*SHARED.get(kind, ())} if not name.startswith("_")}


def names(kind: str) -> list[str]:
    """The names of all parts of a kind, in order."""
    from_users = {path.stem for folder in _folders for path in (folder / kind).glob("*.py")}
    return sorted(built_in_names(kind) | {name for name in from_users if not name.startswith("_")})


def module(kind: str, name: str) -> ModuleType:
    """The module of a part. Raises `SeqlabError` naming the nearest part for an unknown name, for a name that two
    files have, and for a user's file that cannot be imported.
    """
    if name not in names(kind):
        near = difflib.get_close_matches(name, names(kind), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names(kind))}"
        raise SeqlabError(f"no {name!r} among the {kind}: {hint}; parts of your own need --parts DIR")
    own = [path for folder in _folders if (path := folder / kind / f"{name}.py").exists()]
    if own and (len(own) > 1 or name in built_in_names(kind)):
        first = own[1] if len(own) > 1 else f"seqlab/{kind}/{name}.py"
        raise SeqlabError(f"{own[0]}: {first} has the same name: rename the file")
    path = f"{'seqlab_parts' if own else 'seqlab'}.{kind}.{name}"
    try:
        loaded = importlib.import_module(path)
    except Exception as error:
        if not own or isinstance(error, SeqlabError):
            raise
        raise SeqlabError(f"{own[0]} cannot be imported: {type(error).__name__}: {error}") from error
    missing = [attribute for attribute in REQUIRED_NAMES[kind] if not hasattr(loaded, attribute)]
    if missing:
        raise SeqlabError(f"{loaded.__file__}: a file of {kind} must define {', '.join(missing)}")
    return loaded


def part_name(value: Any) -> str:
    """The name of the part that a value is an instance of."""
    return type(value).__module__.rpartition(".")[2]


def part_kind(value: Any) -> str:
    """The folder of the part that a value is an instance of; "" for a class that is in no folder of parts."""
    kind = type(value).__module__.rpartition(".")[0].rpartition(".")[2]
    return kind if kind in REQUIRED_NAMES else ""


def describe(kind: str) -> dict[str, str]:
    """Each name with the first line of its file's docstring, or the reason why the file cannot be used."""
    return {name: description(kind, name) for name in names(kind)}


def description(kind: str, name: str) -> str:
    try:
        return (module(kind, name).__doc__ or "").strip().split("\n")[0]
    except SeqlabError as error:
        return f"cannot be used: {error}"
