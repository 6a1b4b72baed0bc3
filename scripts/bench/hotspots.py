"""Where the time of our training steps goes, by the kind of operation, as the profiler tells it.

    python scripts/bench/hotspots.py [--only transformer lstm gru_attention tcn]

Shares are of the sum over operations. Some run beside each other, and a product that another thread takes part in
counts there as well, so that they are shares of work and not of the clock.
"""

import collections
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import tyro
from rounds import row
from train import CASES, Case, batch_of, experiment_of

from seqlab.memory import keep_freed_memory
from seqlab.train import initial_state, training_step

STEPS = 3
KINDS = {  # by what an operation's name in the traced program ends with, or begins with in the compiled one
    "products": r"dot_general$",
    "sums and maxima": r"(reduce_\w+|cumsum|argmax|logsumexp)$",
    "gather and scatter": r"(gather|scatter|scatter-add|dynamic_\w+)$",
    "copies and transposes": r"^(copy|transpose|bitcast)|(transpose|concatenate|broadcast_in_dim)$",
}


def main(only: tuple[str, ...] = tuple(CASES)) -> None:
    keep_freed_memory()
    for name in only:
        total: collections.Counter[str] = collections.Counter()
        for kind, nanoseconds in operations(CASES[name]):
            total[kind] += nanoseconds
        whole = sum(total.values())
        shares = "; ".join(f"{kind} {100 * part / whole:.0f} %" for kind, part in total.most_common())
        row(f"hotspots/{name}", whole / STEPS / 1e6, None, "ms", shares)


def operations(case: Case) -> Iterator[tuple[str, int]]:
    """The kind of each operation that ran, and its nanoseconds."""
    experiment = experiment_of(case)
    batch = batch_of(case, case.rows, case.source, case.target)
    state = initial_state(experiment, batch)
    step = jax.jit(training_step(experiment), donate_argnums=0).lower(state, batch).compile()
    names = dict(re.findall(r"%?([\w.-]+) = .*op_name=\"([^\"]*)\"", step.as_text() or ""))
    for _ in range(STEPS):
        state, _ = step(state, batch)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                state, _ = step(state, batch)
            jax.block_until_ready(state)
        (path,) = Path(folder).rglob("*.xplane.pb")
        found = jax.profiler.ProfileData.from_file(str(path))
    for plane in found.planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation is not None and not operation.startswith("while"):
                    yield kind_of(operation, names.get(operation, "")), event.duration_ns


def kind_of(operation: str, name: str) -> str:
    end = name.rpartition("/")[2]
    return next((kind for kind, e in KINDS.items() if re.search(e, end) or re.search(e, operation)), "elementwise")


if __name__ == "__main__":
    tyro.cli(main)
