"""Options that several commands share."""

import ast
import dataclasses
import inspect
import os
import typing
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from seqlab.config import Search

DATA_DIR = Path(os.environ.get("SEQLAB_DATA", "data"))
DataDir = Annotated[Path, arg(help="Where prepared data lives; $SEQLAB_DATA, or data.")]
Parts = Annotated[
    Path | None, arg(help="Folder of your own parts (models/, tasks/, codecs/, ...). Its Python files are executed.")
]
RunFolder = Annotated[Positional[Path], arg(metavar="RUN")]
Checkpoint = Annotated[str, arg(metavar="best|last|STEP", help="Which checkpoint.")]


@dataclasses.dataclass(frozen=True)
class Processes:
    """The place of this process among several that run one job."""

    coordinator: str | None = None
    """HOST:PORT of process 0, or auto: from Slurm, a TPU pod, Kubernetes or Open MPI. None: a single process."""
    processes: int | None = None
    """The number of processes."""
    process: int | None = None
    """The number of this process, from 0."""


SINGLE_PROCESS = Processes()
ProcessOptions = Annotated[Processes, arg(name="")]


@dataclasses.dataclass(frozen=True)
class Places:
    """Where data and a user's own parts are."""

    data_dir: DataDir = DATA_DIR
    parts: Parts = None


BaseFolder = Annotated[
    Path | None, arg(metavar="DIR", help="The folder that paths of references are relative to. Default: the run.")
]


@dataclasses.dataclass(frozen=True)
class ReferencePlaces(Places):
    """The same, and where the references of a loss are."""

    base: BaseFolder = None


DEFAULT_PLACES = Places()
DEFAULT_REFERENCE_PLACES = ReferencePlaces()
PlaceOptions = Annotated[Places, arg(name="")]


def field_help(cls: type) -> dict[str, str]:
    """The string below each field of a dataclass, by the field's name."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    help_texts = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):  # pyright: ignore
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            help_texts[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return help_texts


def make_search_options() -> type:
    """A dataclass with the fields of `config.Search` and its help texts. A field that is None stays the run's own."""
    help_texts, types = field_help(Search), typing.get_type_hints(Search)
    fields: list[Any] = [
        (
            field.name,
            Annotated[types[field.name] | None, arg(help=help_texts[field.name].partition(" None: ")[0])],
            dataclasses.field(default=None),
        )
        for field in dataclasses.fields(Search)
    ]
    return dataclasses.make_dataclass("SearchOptions", fields, frozen=True)


SearchFields = make_search_options()
NO_SEARCH: Any = SearchFields()
if typing.TYPE_CHECKING:
    SearchOptions = Any
else:
    SearchOptions = Annotated[SearchFields, arg(name="")]


@dataclasses.dataclass(frozen=True)
class AnalysisEffort:
    """How much of a split is analyzed, and how far."""

    lines: int = 0
    """Only the first N lines; 0: all."""
    beams: tuple[int, ...] = (1, 2, 5, 10, 50)
    """Widths that are tried."""
    exact: int = 100
    """How many lines exact search looks at; 0: none."""
    nodes: int = 1000
    """Steps of the model that it takes for each."""


DEFAULT_ANALYSIS = AnalysisEffort()
AnalysisOptions = Annotated[AnalysisEffort, arg(name="")]
