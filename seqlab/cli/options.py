"""TODO cli.options."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

DataDir = Annotated[Path, arg(help="Where prepared data lives; $SEQLAB_DATA, or data.")]

Parts = Annotated[Path | None, arg(help="A folder of your own models/, datasets/ and tasks/: Python, executed.")]

Run = Annotated[Positional[Path], arg(metavar="RUN")]


Which = Annotated[str, arg(metavar="best|last|STEP", help="Which checkpoint.")]

DATA_DIR = Path(os.environ.get("SEQLAB_DATA", "data"))


@dataclasses.dataclass(frozen=True)
class Processes:
    """Which of several processes this one is, that work as one."""

    coordinator: str | None = None
    """HOST:PORT of process 0; or auto: as Slurm, a TPU pod, Kubernetes or Open MPI say. None: there are no others."""
    processes: int | None = None
    """How many there are."""
    process: int | None = None
    """Which this is, from 0 on."""


ALONE = Processes()
Cluster = Annotated[Processes, arg(name="")]


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What is given in the place of the run's own search: the fields of `config.Search`."""

    beam: int | None = None
    """Hypotheses kept a sentence; 1 is greedy search."""
    preset: str | None = None
    """What "beam search" means: seqlab, gnmt, fairseq, joey, marian, ct2 or hf."""
    length: str | None = None
    """The length penalty: none, gnmt, ((5 + n) / 6) ** alpha, or power, n ** alpha."""
    alpha: float | None = None
    """Its exponent."""
    word_penalty: float | None = None
    """What each token costs before the length penalty."""
    coverage: float | None = None
    """Weight of the coverage penalty, for models that attend to the source."""
    groups: int | None = None
    """Diverse beam search: so many groups, that keep away from one another's tokens."""
    diversity: float | None = None
    """What a token costs a group for each time that the groups before it have just chosen it."""
    stop: str | None = None
    """When a sentence is done: optimal, first, full, bound, top, empty or slots."""
    max_length: int | None = None
    """Most tokens to write, EOS included."""
    max_ratio: float | None = None
    """Most tokens to write, as a multiple of the source's."""
    min_length: int | None = None
    """Fewest tokens to write, EOS included."""
    min_ratio: float | None = None
    """Fewest tokens to write, as a multiple of the source's."""
    no_repeat: int | None = None
    """So many tokens in a row are not written twice."""
    repetition: float | None = None
    """Penalty of tokens that have been written; 1 is none."""
    forbid: tuple[str, ...] | None = None
    """Texts that are never written, each a single token."""
    sample: int | None = None
    """A seed: texts are drawn, and not searched for; as many as the beam holds, the likeliest first."""
    temperature: float | None = None
    """Of samples: below 1 what is likely becomes likelier."""
    top_k: int | None = None
    """Of samples: only the so many likeliest tokens may be drawn."""
    top_p: float | None = None
    """Of samples: only the likeliest tokens that have this share of the probability together."""
    batch_tokens: int | None = None
    """Most positions of sources and hypotheses at once, a device."""
    risk: str | None = None
    """Minimum Bayes risk: the sample that is most like all the others, by chrf or bleu."""


NO_SEARCH = SearchOptions()


@dataclasses.dataclass(frozen=True)
class AnalysisOptions:
    """How much of a split is analyzed, and how far."""

    lines: int = 0
    """Only the first so many lines; 0: all."""
    beams: tuple[int, ...] = (1, 2, 5, 10, 50)
    """Widths that are tried."""
    exact: int = 100
    """How many lines exact search looks at; 0: none."""
    nodes: int = 1000
    """Steps of the model that it takes for each."""


ALL_OF_IT = AnalysisOptions()
