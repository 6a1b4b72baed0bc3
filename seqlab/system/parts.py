"""Discovery of parts by file name: seqlab/FOLDER/NAME.py, and DIR/FOLDER/NAME.py in the folders of a user."""

import difflib
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from seqlab.system.errors import SeqlabError

# The names that a file of each kind must define.
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
    """Adds a folder of custom parts, which are Python files and are executed: DIR/models/x.py becomes the module
    `seqlab_parts.models.x`, which a config can import. Raises `SeqlabError` if the folder has no parts.
    """
    if not any((folder / kind).is_dir() for kind in PART_FOLDERS):
        raise SeqlabError(f"{folder}: no parts; expected {', '.join(f'{folder}/{kind}/' for kind in PART_FOLDERS)}")
    folder = folder.resolve()
    if folder not in _folders:
        _folders.append(folder)
        package = sys.modules.setdefault("seqlab_parts", ModuleType("seqlab_parts"))
        package.__path__ = [str(folder) for folder in _folders]


def built_in_names(kind: str) -> set[str]:
    """Returns the names of the built-in parts of a kind."""
    package = importlib.import_module(f"seqlab.{kind}")
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return {name for name in modules - {*SHARED.get(kind, ())} if not name.startswith("_")}


def names(kind: str) -> list[str]:
    """Returns the names of all parts of a kind, sorted."""
    from_users = {path.stem for folder in _folders for path in (folder / kind).glob("*.py")}
    return sorted(built_in_names(kind) | {name for name in from_users if not name.startswith("_")})


def module(kind: str, name: str) -> ModuleType:
    """Returns the module of a part. Raises `SeqlabError` if the name is unknown (naming the closest match), if two
    files have the name, or if a custom file cannot be imported.
    """
    if name not in names(kind):
        near = difflib.get_close_matches(name, names(kind), n=1)
        hint = f"choose from {', '.join(names(kind))}; pass --parts DIR to use custom parts"
        if near:
            hint = f"did you mean {near[0]!r}? Custom parts need --parts DIR"
        elif not names(kind):
            hint = "seqlab has no built-in ones; pass --parts DIR to use custom ones"
        raise SeqlabError(f"unknown {kind.removesuffix('s')} {name!r}: {hint}")
    own = [path for folder in _folders if (path := folder / kind / f"{name}.py").exists()]
    if own and (len(own) > 1 or name in built_in_names(kind)):
        first = own[1] if len(own) > 1 else f"seqlab/{kind}/{name}.py"
        raise SeqlabError(f"{own[0]}: {first} has the same name: rename the file")
    path = f"{'seqlab_parts' if own else 'seqlab'}.{kind}.{name}"
    try:
        loaded = importlib.import_module(path)
    except (Exception, SystemExit) as error:
        if not own or isinstance(error, SeqlabError):
            raise
        reason = str(error).partition("\n")[0]
        raise SeqlabError(f"{own[0]} cannot be imported: {type(error).__name__}: {reason}") from error
    missing = [attribute for attribute in REQUIRED_NAMES[kind] if not hasattr(loaded, attribute)]
    if missing:
        raise SeqlabError(f"{loaded.__file__}: a file of {kind} must define {', '.join(missing)}")
    return loaded


def part_name(value: Any) -> str:
    """Returns the name of the part whose class a value has."""
    return type(value).__module__.rpartition(".")[2]


def part_kind(value: Any) -> str:
    """Returns the folder of the part whose class a value has, or "" for a class that is not in a folder of parts."""
    kind = type(value).__module__.rpartition(".")[0].rpartition(".")[2]
    return kind if kind in REQUIRED_NAMES else ""


def describe(kind: str) -> dict[str, str]:
    """Returns, by name, the first line of the docstring of each part, or the reason why it cannot be used."""
    return {name: description(kind, name) for name in names(kind)}


def description(kind: str, name: str) -> str:
    try:
        return (module(kind, name).__doc__ or "").strip().split("\n")[0]
    except SeqlabError as error:
        return f"cannot be used: {error}"
