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
DataDir = Annotated[Path, arg(help="Folder of prepared data.", help_behavior_hint="(default: $SEQLAB_DATA, or data)")]
Parts = Annotated[
    Path | None, arg(help="Folder of custom parts (models/, tasks/, codecs/, ...). Its Python files are executed.")
]
RunFolder = Annotated[Positional[Path], arg(metavar="RUN", help="Folder of the run.")]
Checkpoint = Annotated[str, arg(metavar="best|last|STEP", help="Checkpoint to load.")]
Split = Annotated[str, arg(help="Split of the dataset.")]
Json = Annotated[bool, arg(help="Print JSON.")]


@dataclasses.dataclass(frozen=True)
class Processes:
    """The place of this process in a job of several processes."""

    coordinator: str | None = None
    """HOST:PORT of process 0, or auto (detected from Slurm, a TPU pod, Kubernetes or Open MPI)."""
    processes: int | None = None
    """Number of processes."""
    process: int | None = None
    """Index of this process, from 0."""


SINGLE_PROCESS = Processes()
ProcessOptions = Annotated[Processes, arg(name="")]


@dataclasses.dataclass(frozen=True)
class Places:
    """The folders of data and of custom parts."""

    data_dir: DataDir = DATA_DIR
    parts: Parts = None


BaseFolder = Annotated[
    Path | None,
    arg(
        metavar="DIR",
        help="Base folder for the relative paths of reference models.",
        help_behavior_hint="(default: the run)",
    ),
]


@dataclasses.dataclass(frozen=True)
class ReferencePlaces(Places):
    """The folders of data, of custom parts and of references."""

    base: BaseFolder = None


@dataclasses.dataclass(frozen=True)
class EvaluationPlaces(ReferencePlaces):
    """The folders of data, of custom parts and of references, and the places of moved files."""

    data: Annotated[
        tuple[str, ...],
        arg(
            metavar="FIELD=VALUE",
            help="Fields of the dataset to override, such as test=FILE for a file that has moved.",
        ),
    ] = ()


DEFAULT_PLACES = Places()
DEFAULT_EVALUATION_PLACES = EvaluationPlaces()
DEFAULT_REFERENCE_PLACES = ReferencePlaces()
PlaceOptions = Annotated[Places, arg(name="")]


def field_help(cls: type) -> dict[str, str]:
    """Returns the string below each field of a dataclass, by the name of the field."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    help_texts = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):  # pyright: ignore
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            help_texts[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return help_texts


def make_search_options() -> type:
    """Returns a dataclass with the fields and help texts of `config.Search`. None stands for the value of the run."""
    help_texts, types = field_help(Search), typing.get_type_hints(Search)
    fields: list[Any] = [
        (
            field.name,
            Annotated[
                types[field.name] | None,
                arg(
                    help=help_texts[field.name].partition(" None: ")[0],
                    help_behavior_hint="(default: the run's value)",
                ),
            ],
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
    """The effort of an analysis."""

    lines: int = 0
    """Maximum number of lines to analyze; 0: all."""
    beams: tuple[int, ...] = (1, 2, 5, 10, 50)
    """Beam widths to try."""
    exact: int = 100
    """Number of lines for exact search; 0: none."""
    nodes: int = 1000
    """Maximum number of model steps of exact search per line."""


DEFAULT_ANALYSIS = AnalysisEffort()
AnalysisOptions = Annotated[AnalysisEffort, arg(name="")]
