"""One step on many devices: jit over a mesh (rows split, parameters everywhere), or pmap."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seqlab.errors import SeqlabError
from seqlab.step import TrainState

AXIS = "data"


class Runner(NamedTuple):
    """How a step is run: put the state and a batch where they belong, run, and take the state back."""

    axis: str | None  # what `make_step` adds over
    place: Callable[[Any], Any]  # a state onto the devices
    feed: Callable[[Any], Any]  # a batch onto the devices, filled up to a multiple of them
    compile: Callable[[Callable[..., Any]], Callable[..., Any]]  # a step, its state donated
    fetch: Callable[[Any], Any]  # one copy of a replicated tree


def fill_rows(batch: Any, devices: int) -> Any:
    """NumPy arrays [B ...] with rows of zeros added up to a multiple of `devices`; their weights are zero too."""
    return jax.tree.map(lambda x: fit_rows(x, -(-len(x) // devices) * devices), batch)


def fit_rows(x: np.ndarray, rows: int) -> np.ndarray:
    """[B ...] with rows of zeros added, or taken away: what was filled up for one number of devices, for another."""
    missing = rows - len(x)
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing > 0 else x[:rows]


def make_runner(name: str) -> Runner:
    """ "jit": the mesh of all devices. "pmap": the same arithmetic, one program a device."""
    devices = jax.devices()
    count = len(devices)
    if name == "jit":
        mesh = jax.make_mesh((count,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
        everywhere = NamedSharding(mesh, PartitionSpec())
        by_row = NamedSharding(mesh, PartitionSpec(AXIS))
        return Runner(
            axis=None,
            place=lambda state: jax.device_put(state, everywhere),
            feed=lambda batch: jax.device_put(fill_rows(batch, count), by_row),
            compile=lambda step: jax.jit(step, donate_argnums=0, out_shardings=everywhere),
            fetch=lambda tree: tree,
        )
    if name == "pmap":

        def split(batch: Any) -> Any:
            return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), fill_rows(batch, count))

        def copies(tree: Any) -> Any:
            return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))), tree)

        def place(tree: Any) -> Any:
            """A copy of the tree for each device; a state's carry is of rows, and split."""
            placed = copies(tree)
            if isinstance(tree, TrainState):
                placed = placed.replace(carry=jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), tree.carry))
            return placed

        def first(x: Any) -> Any:
            # A device's own piece: indexing the whole array would be one more program on all devices, which may wait
            # for ever for the step that is under way.
            return x.addressable_shards[0].data[0] if isinstance(x, jax.Array) else x[0]

        def fetch(tree: Any) -> Any:
            fetched = jax.tree.map(first, tree)
            if isinstance(tree, TrainState):
                rows = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree.carry)
                fetched = fetched.replace(carry=rows)
            return fetched

        return Runner(
            axis=AXIS,
            place=place,
            feed=split,
            compile=lambda step: jax.pmap(step, axis_name=AXIS, donate_argnums=0),
            fetch=fetch,
        )
    raise SeqlabError(f"unknown parallel {name!r}: jit or pmap")
