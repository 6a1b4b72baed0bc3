"""Profiles training steps and decoding, and prints the time by kind of operation.

    python scripts/bench/hotspots.py --run RUN --input F [--only transformer lstm gru_attention tcn greedy beam ...]

Profiles training steps of the models, and decoding with random weights: `greedy` with the GRU with attention, `beam`
with the Transformer and a beam of 5. With the run, `run/train` profiles steps on its first batches, and `run/beam`
decodes the first lines of F. Everything runs on one core, because the profiler counts concurrent work of several
threads twice or not at all. The time of a row is measured without the profiler; shares come from a profiled round.
"""

import collections
import dataclasses
import itertools
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from growth import decoding
from rounds import check_names, run_main, seconds, tell
from train import CASES, Case, batch_of, experiment_of, initial_params, our_steps

from seqlab.cli.options import DATA_DIR
from seqlab.data.text_files import read_lines
from seqlab.evaluation.show_batch import training_batch
from seqlab.runs.loading import load
from seqlab.system.memory import keep_freed_memory

KINDS = {  # by the end of the name of an operation in the traced program, or the beginning in the compiled program
    "products": r"dot_general$",
    "sums and maxima": r"(reduce_\w+|cumsum|argmax|logsumexp|top_k)$",
    "gather and scatter": r"(gather|scatter|scatter-add|dynamic_\w+)$",
    "copies and transposes": r"^(copy|transpose|bitcast)|(transpose|concatenate|broadcast_in_dim)$",
}
OF_OTHERS = ("while", "conditional", "call")
OF_LOOPS = ("while", "body", "cond", "closed_call", "checkpoint")  # parts of names that loops add
LARGEST = 6  # number of places to report
Seconds = collections.Counter[str]
DECODING = {"greedy": ("gru_attention", 256, 1), "beam": ("transformer", 64, 5)}  # case, sentences, beam
LENGTH = 32  # of sources and outputs
RUNNING = ("run/train", "run/beam")
BATCHES, LINES = 12, 200
ROUNDS = 5


def main(run: Path, input: Path, only: tuple[str, ...] = (*CASES, *DECODING, *RUNNING)) -> None:
    check_names(only, [*CASES, *DECODING, *RUNNING])
    keep_freed_memory()
    jax.config.update("jax_compilation_cache_dir", None)  # cached programs lack the names of operations
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder} --xla_dump_hlo_as_text"
        for name in only:
            if name in RUNNING:
                work = running(name, run, input)
            else:
                work = searching(*DECODING[name]) if name in DECODING else training(CASES[name])
            work()
            times = [1000 * seconds(work) for _ in range(ROUNDS)]
            taken, kinds, places = shares(work, Path(folder))
            told, most = (
                "; ".join(f"{what} {100 * part / taken:.0f} %" for what, part in total)
                for total in (kinds.most_common(), places.most_common(LARGEST))
            )
            notes = f"one core; {told}; in total {100 * kinds.total() / taken:.0f} %. Products: {most}"
            tell(f"hotspots/{name}", {"seqlab": times}, "seqlab", None, "ms", notes)


def training(case: Case) -> Callable[[], Any]:
    return our_steps(experiment_of(case), [batch_of(case, case.rows, case.source, case.target)])


def running(name: str, run: Path, input: Path) -> Callable[[], Any]:
    loaded = load(run, dtype="float32")
    if name == "run/beam":
        lines = list(itertools.islice(read_lines(input), LINES))
        return lambda: loaded.translate(lines, beam=5, preset="ct2", alpha=1.0, max_length=128)
    model = loaded.model.clone(dropout=0.0, inner_dropout=None)
    batches = [training_batch(run, step, DATA_DIR).batch for step in range(1, BATCHES + 1)]
    return our_steps(dataclasses.replace(loaded.experiment, model=model), batches)


def searching(name: str, sentences: int, beam: int) -> Callable[[], Any]:
    return decoding(CASES[name], initial_params(CASES[name]), sentences, LENGTH, beam)


def shares(work: Callable[[], Any], compiled: Path) -> tuple[float, Seconds, Seconds]:
    """Returns the seconds that `work` takes, the seconds of each kind of operation, and the seconds of the products
    at each place in the model. `compiled` is the folder where XLA dumps the compiled programs.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            taken = seconds(work)
        (path,) = Path(folder).rglob("*.xplane.pb")
        found = jax.profiler.ProfileData.from_file(str(path))
    names = {
        int(path.name.split("_")[1].split(".")[0]): dict(
            re.findall(r"%?([\w.-]+) = .*op_name=\"([^\"]*)\"", path.read_text())
        )
        for path in compiled.glob("module_*_after_optimizations.txt")
    }
    kinds, places = Seconds(), Seconds()
    for event in (event for plane in found.planes for line in plane.lines for event in line.events):
        about = dict(event.stats)
        operation = about.get("hlo_op")
        if operation is not None and not operation.startswith(OF_OTHERS):
            name = names[about["program_id"]].get(operation, "")
            kind = kind_of(operation, name)
            kinds[kind] += event.duration_ns / 1e9
            if kind == "products":
                places[place_of(name)] += event.duration_ns / 1e9
    return taken, kinds, places


def kind_of(operation: str, name: str) -> str:
    end = name.rpartition("/")[2]
    found = (kind for kind, e in KINDS.items() if re.search(e, end) or re.search(e, operation))
    return next(found, "elementwise and other")


def place_of(name: str) -> str:
    """Returns the innermost modules of an operation, without the numbers of layers."""
    modules = [re.sub(r"_\d+", "", part) for part in name.split("/")[:-1] if re.fullmatch(r"[\w.]+", part)]
    return "/".join([part for part in modules if part not in OF_LOOPS][-2:])


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    run_main(main)
