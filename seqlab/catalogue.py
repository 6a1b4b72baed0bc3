"""The catalogue of parts by file name. Resolves, saves and loads experiments."""

import dataclasses
import difflib
import json
import reprlib
import runpy
import traceback
from pathlib import Path
from typing import Any, get_type_hints

from flax import linen as nn

from seqlab.codecs.codec import Codec, Codecs
from seqlab.config import Experiment
from seqlab.data.task import check_task
from seqlab.layers.nesting import changed_modules, field_names, modules_in, readers_of
from seqlab.system.checks import type_error
from seqlab.system.errors import RESTORE, SeqlabError, with_advice
from seqlab.system.files import write_atomically
from seqlab.system.parts import REQUIRED_NAMES, module, names, part_kind, part_name
from seqlab.system.untrusted import fits, read_json, resolve_inside
from seqlab.types import Encoder, Generator, Reader, kind_of

EXPERIMENT_FOLDERS = tuple(
    kind for kind in REQUIRED_NAMES if kind != "metrics"
)  # folders of the parts of an experiment
FOLDER_OF_FIELD = {"model": "models", "data": "datasets", "task": "tasks", "parametrization": "parametrizations"}
# Fields of a model that are 0 in a config, and the column whose codec fills in each. A reader names its own column.
SIZES = {"vocabulary": "target", "classes": "label"}
VERSION = 2  # version of the format of runs
# Bounds of sizes that are read from a run, not from a config: a damaged run must not exhaust the memory.
MAX_LAYERS = 1000
MAX_SIZE = 1 << 24


def part_class(kind: str, name: str) -> type:
    """Returns the class of a part: the class that its file names, or the type of its TINY (see `REQUIRED_NAMES`)."""
    loaded, (required, *_) = module(kind, name), REQUIRED_NAMES[kind]
    return type(loaded.TINY) if required == "TINY" else getattr(loaded, required)


def dataset(name: str) -> Any:
    """Returns the dataset for a name such as "multi30k/en-de", in which the text after the slash is its
    first field.
    """
    base, _, variant = name.partition("/")
    cls = part_class("datasets", base)
    if not variant:
        return cls()
    first = next(iter(dataclasses.fields(cls)), None)
    if first is None or get_type_hints(cls)[first.name] is not str:
        option = f" --{first.name.replace('_', '-')} {variant}" if first else ""
        raise SeqlabError(f"{name}: {base} does not accept a value after the slash: use {base}{option}")
    return cls(variant)


def load_config(path: Path) -> Experiment:
    """Returns the `experiment` of a config file, which is Python and is executed."""
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise SeqlabError(f"the config {path} does not exist{hint}")
    try:
        experiment = runpy.run_path(str(path)).get("experiment")
    except SyntaxError as error:
        raise SeqlabError(f"{error.filename or path}:{error.lineno}: {error.msg}") from None
    except SeqlabError:
        raise
    except Exception as error:  # a config may raise anything
        needs_parts = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("seqlab_parts")
        hint = "; custom parts need --parts DIR" if needs_parts else ""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise SeqlabError(f"{path}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}{hint}") from None
    if not isinstance(experiment, Experiment):
        raise SeqlabError(f"{path}: a config must define `experiment`, a seqlab.config.Experiment")
    return experiment


def resolve(experiment: Experiment, codecs: Codecs) -> Experiment:
    """Returns the experiment with the sizes of the model and its readers filled in from the codecs. Raises
    `SeqlabError` if the config has other sizes.
    """
    model, task = experiment.model, type(experiment.task).__name__
    for name, column in SIZES.items():
        if column in codecs and codecs[column].size is not None and not hasattr(model, name):
            raise SeqlabError(f"{type(model).__name__} does not fit {task}: it has no field {name!r}")
    tables = [reader.column for reader in readers_of(model).values() if hasattr(reader, "vocabulary")]
    shares_table = isinstance(model, Generator) and model.shares_table
    if shares_table and any(codecs[column] != codecs["target"] for column in tables):
        raise SeqlabError(
            "model.tie 'all' needs one joint vocabulary: set text.joint to True, or set model.tie to 'target'"
        )

    def sizes(module: Any, path: str) -> dict[str, int]:
        """Returns the sizes of a module, from the codecs where the config has 0."""
        fields = {name: getattr(module, name) for name in sizes_of(module)}
        for name, column in sizes_of(module).items():
            actual = size_of(codecs[column], name) if column in codecs else None
            if actual is not None and fields[name] not in (0, actual):
                place = f"model.{path}.{name}" if path else f"model.{name}"
                raise SeqlabError(f"{place} is {fields[name]}, but the data has {actual}: set it to 0")
            fields[name] = fields[name] if actual is None else actual
        return fields

    return dataclasses.replace(experiment, model=changed_modules(model, sizes))


def without_sizes(model: Any) -> Any:
    """Returns the model with 0 for the sizes that come from codecs, as in a config."""
    return changed_modules(model, lambda module, _: dict.fromkeys(sizes_of(module), 0))


def size_of(codec: Codec, name: str) -> int | None:
    """Returns the size of a codec for a field of this name, or None if it has none yet."""
    if name == "features":
        return codec.shape[-1] if codec.shape else None
    return codec.size


def sizes_of(module: nn.Module) -> dict[str, str]:
    """Returns the fields of a model or a reader that take a size from a codec, with their columns."""
    if isinstance(module, Reader):
        return {name: module.column for name in ("vocabulary", "features") if name in field_names(module)}
    return {name: column for name, column in SIZES.items() if name in field_names(module)}


def with_expected_sizes(experiment: Experiment) -> Experiment:
    """Returns the experiment with sizes that suffice to build its model before its data is known: `text.size` for
    codecs that are not learned yet.
    """

    def expected(module: Any, _: str) -> dict[str, int]:
        columns = {name: column for name, column in sizes_of(module).items() if not getattr(module, name)}
        return {name: known_size(column, name) or experiment.text.size for name, column in columns.items()}

    def known_size(column: str, name: str) -> int | None:
        codec = experiment.task.columns.get(column)
        return None if codec is None or (codec.learned and name != "features") else size_of(codec, name)

    return dataclasses.replace(experiment, model=changed_modules(experiment.model, expected))


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Returns the experiment as plain values. Each part has the name of its file."""
    return {field.name: part_to_json(getattr(experiment, field.name)) for field in dataclasses.fields(experiment)}


def part_to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [part_to_json(element) for element in value]
    if not dataclasses.is_dataclass(value):
        return value
    linen_fields = ("parent", "name") if isinstance(value, nn.Module) else ()
    names = [field.name for field in dataclasses.fields(value) if field.name not in linen_fields]
    encoded = {name: part_to_json(getattr(value, name)) for name in names}
    kind, name = part_kind(value), part_name(value)
    if kind not in EXPERIMENT_FOLDERS:
        return encoded
    return {"part": name if kind in FOLDER_OF_FIELD.values() else f"{kind}/{name}", **encoded}


def from_json(values: dict[str, Any]) -> Experiment:
    """Returns the experiment from the values of `to_json`. Raises `SeqlabError` for names and fields that do not
    exist.
    """
    hints = get_type_hints(Experiment)
    decoded = {}
    try:
        for name, value in values.items():
            kind = FOLDER_OF_FIELD.get(name)
            if name == "model" and not isinstance(value, dict):
                raise unnamed_part(name, value)
            if kind is not None and value is not None:
                decoded[name] = part_from_json(kind, value, name)
            elif isinstance(value, dict):
                decoded[name] = build_checked(
                    hints[name], {key: part_from_json("", element, key) for key, element in value.items()}, name
                )
            else:
                decoded[name] = part_from_json("", value, name)
        return build_checked(Experiment, decoded, "experiment")
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SeqlabError(f"not an experiment of this version: {error}") from None


def unnamed_part(place: str, value: Any) -> SeqlabError:
    """Returns the error about a value in JSON that should be a part, but does not name one."""
    if not isinstance(value, dict):
        return SeqlabError(f"{place} must be a part (a JSON object with the field 'part'), not {reprlib.repr(value)}")
    found = reprlib.repr(value.get("part"))
    return SeqlabError(f"{place}.part must be the name of a part (`seqlab list KIND` lists them), not {found}")


def part_from_json(kind: str, value: Any, place: str) -> Any:
    """Returns a part, or a field of one. Lists become tuples, because a linen module must be hashable."""
    if isinstance(value, list):
        return tuple(part_from_json(kind, element, place) for element in value)
    if not isinstance(value, dict):
        return value
    part = value.get("part")
    if kind not in EXPERIMENT_FOLDERS or not isinstance(part, str):
        raise unnamed_part(place, value)
    if "/" in part:
        kind, _, part = part.partition("/")
        if kind not in EXPERIMENT_FOLDERS:
            raise unnamed_part(place, value)
    fields = {
        name: part_from_json(kind, element, f"{place}.{name}") for name, element in value.items() if name != "part"
    }
    built = build_checked(part_class(kind, part), fields, place)
    for name, size in fields.items() if kind != "datasets" else ():
        limit = MAX_LAYERS if name.endswith("layers") else MAX_SIZE
        if isinstance(size, int) and abs(size) > limit:
            raise SeqlabError(f"{place}.{name} is {size}, but must be at most {limit}")
    return built


def build_checked(cls: type, fields: dict[str, Any], place: str) -> Any:
    """Returns the dataclass with some fields. Raises `SeqlabError` for an unknown field, or a value of
    another type.
    """
    hints = get_type_hints(cls)
    linen_fields = ("parent", "name") if issubclass(cls, nn.Module) else ()
    field_names = {field.name for field in dataclasses.fields(cls)} - {*linen_fields}
    for name, value in fields.items():
        if name not in field_names:
            near = difflib.get_close_matches(name, field_names, n=1)
            hint = f": did you mean {near[0]!r}? If" if near else "; if"
            raise SeqlabError(
                f"unknown field {place}.{name}{hint} another version of seqlab wrote this file, use that version"
            )
        if not fits(value, hints[name]):
            raise type_error(f"{place}.{name}", value, hints[name])
    return cls(**fields)


def save_experiment(experiment: Experiment, path: Path) -> None:
    write_atomically(path, json.dumps({"version": VERSION, **to_json(experiment)}, indent=1) + "\n")


def load_experiment(path: Path) -> Experiment:
    if not path.is_file():
        raise SeqlabError(f"{path.parent} is not a run: it has no {path.name}")
    with with_advice(RESTORE):
        values = read_json(resolve_inside(path.parent, path.name), dict[str, Any])
    version = values.pop("version", 1)
    if version == 1:
        run = path.parent
        raise SeqlabError(f"{run} was made by an older version: convert it with `seqlab migrate {run} --out NEW`")
    if version != VERSION:
        raise SeqlabError(f"{path}: format version {version!r}; this seqlab reads version {VERSION}")
    try:
        return from_json(values)
    except ValueError as error:
        raise SeqlabError(f"{path}: {error}") from None


def differences(old: Experiment, new: Experiment) -> list[str]:
    """Returns the fields in which two experiments differ, as "name: old -> new"."""
    return list(_differences("", to_json(old), to_json(new)))


def _differences(prefix: str, old: Any, new: Any):
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(f"{prefix}{name}.", old.get(name), new.get(name))
    elif old != new:
        yield f"{prefix[:-1]}: {old} -> {new}"


def is_part(value: Any, kind: str) -> bool:
    """Returns whether a value has the class of the part that its file in a folder of parts defines."""
    name = part_name(value)
    return kind in EXPERIMENT_FOLDERS and name in names(kind) and part_class(kind, name) is type(value)


def check_parts(experiment: Experiment) -> None:
    """Raises `SeqlabError` for parts that are not in the catalogue, and for a model that does not fit the task."""
    for field_name, kind in FOLDER_OF_FIELD.items():
        value = getattr(experiment, field_name)
        if value is None and field_name == "parametrization":
            continue
        if not is_part(value, kind):
            raise SeqlabError(f"{type(value).__name__} must be in a file of {kind}/ (see --parts)")
    for path, inner in modules_in(experiment.model):
        kind, cls = part_kind(inner), type(inner)
        if path and not is_part(inner, kind):
            raise SeqlabError(
                f"model.{path}: {cls.__name__} must be in a file of encoders/ or readers/ (see --parts)"
            )
        base = {"encoders": Encoder, "readers": Reader}.get(kind)
        if base is not None and base not in cls.__mro__:
            raise SeqlabError(f"model.{path}: {cls.__name__} must inherit from seqlab.types.{base.__name__}")
        if base is Encoder and not isinstance(inner.causal, bool):
            raise SeqlabError(f"model.{path}: {cls.__name__} must define the property causal, True or False")
    check_task(experiment.task)
    model, task, protocol = type(experiment.model).__name__, type(experiment.task).__name__, experiment.task.model
    if not isinstance(experiment.model, protocol):
        raise SeqlabError(f"{task} needs a {kind_of(protocol)}, which {model} is not")
    readers = readers_of(experiment.model)
    for path, reader in readers.items():
        if reader.column not in experiment.task.columns:
            columns = ", ".join(map(repr, experiment.task.columns))
            raise SeqlabError(f"model.{path} reads the column {reader.column!r}, but {task} has only {columns}")
    if protocol is Generator and "source" in experiment.task.columns and not readers:
        raise SeqlabError(f"{model} does not read a source, but {task} has one: choose a model with a reader")
    check_saved_form(experiment)


def check_saved_form(experiment: Experiment) -> None:
    """Raises `SeqlabError` for an experiment that changes when it is saved and loaded."""
    try:
        same = from_json(json.loads(json.dumps(to_json(experiment)))) == experiment
    except (SeqlabError, TypeError) as error:
        raise SeqlabError(
            f"this experiment cannot be saved: {error}; each part must be the class that its file defines"
        ) from None
    if not same:
        raise SeqlabError("this experiment changes when it is saved: fields of parts must be plain values or parts")
