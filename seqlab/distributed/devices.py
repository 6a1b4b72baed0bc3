"""One step on many devices: jit over a mesh of data, fsdp and tensor axes, or pmap. Devices may be of several
processes, of which each holds its rows alone.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seqlab.config import Parallel
from seqlab.data.plans import Rows
from seqlab.distributed.sharding import specs
from seqlab.system.errors import SeqlabError, at_least
from seqlab.types import TrainState

AXIS = "data"  # of pmap
AXES = ("data", "fsdp", "tensor")  # of the mesh
ROWS = PartitionSpec(("data", "fsdp"))
ALL_ALIKE = Parallel()  # every device has all parameters


class Runner(NamedTuple):
    """How a step is run: put the state and a batch where they belong, run, and take the state back."""

    axis: str | None  # what `make_step` adds over
    parts: int  # rows are a multiple of it
    own: Callable[[int], np.ndarray]  # which of so many rows, a multiple of `parts`, this process holds
    like: Callable[[TrainState], TrainState]  # from a state's shapes, what of a checkpoint goes where
    create: Callable[[Callable[[], Any]], Any]  # a state that a function makes, on the devices from the first
    place: Callable[[Any], Any]  # a state, or parameters, onto the devices
    feed: Callable[[Any], Any]  # this process's rows of a batch onto its devices
    compile: Callable[[Callable[..., Any]], Callable[..., Any]]  # a step, its state donated
    fetch: Callable[[Any], Any]  # one whole copy of a state, or of what a step tells, for this process
    saved: Callable[[Any], Any]  # a state in the shapes that a checkpoint has, wherever it lies


def fill_rows(batch: Any, parts: int) -> Any:
    """NumPy arrays [B ...] with rows of zeros added up to a multiple of `parts`; their weights are zero too."""
    return jax.tree.map(lambda x: fit_rows(x, -(-len(x) // parts) * parts), batch)


def fit_rows(x: np.ndarray, rows: int) -> np.ndarray:
    """[B ...] with rows of zeros added, or taken away: what was filled up for one number of devices, for another."""
    missing = rows - len(x)
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing > 0 else x[:rows]


def make_runner(parallel: Parallel = ALL_ALIKE, accumulate: int = 1) -> Runner:
    """For all devices of all processes, and batches that are worked on in `accumulate` parts."""
    check_parallel(parallel)
    if parallel.name == "pmap":
        return by_pmap(accumulate)
    return by_jit(parallel, accumulate)


def check_parallel(parallel: Parallel) -> None:
    """Raises `SeqlabError` for what the devices cannot be split into."""
    if parallel.name not in ("jit", "pmap"):
        raise SeqlabError(f"unknown parallel.name {parallel.name!r}: jit or pmap")
    for name in ("fsdp", "tensor", "heartbeat"):
        at_least(f"parallel.{name}", getattr(parallel, name), 1)
    count, sharing = len(jax.devices()), parallel.fsdp * parallel.tensor
    if parallel.name == "pmap" and sharing > 1:
        raise SeqlabError("pmap copies the parameters to every device: parallel.fsdp and parallel.tensor need jit")
    if count % sharing:
        raise SeqlabError(
            f"parallel.fsdp {parallel.fsdp} times parallel.tensor {parallel.tensor} does not divide {count} device(s)"
        )


def collate_own(runner: Runner, collate: Callable[[Rows], Any]) -> Callable[[Rows], Any]:
    """From a batch to be, to this process's rows of it, filled up."""

    def own(rows: Rows) -> Any:
        which = runner.own(-(-rows.rows // runner.parts) * runner.parts)
        return jax.tree.map(lambda x: fit_rows(x, len(which)), collate(rows.only(which)))

    return own


def described(parallel: Parallel) -> str:
    """The devices, and how they are shared."""
    devices, processes = jax.devices(), jax.process_count()
    told = f"{len(devices)} {devices[0].platform} device(s)"
    if processes > 1:
        told += f" of {processes} processes"
    if parallel.name == "pmap":
        return f"{told}, by pmap"
    sharing = parallel.fsdp * parallel.tensor
    return f"{told}: data {len(devices) // sharing} x fsdp {parallel.fsdp} x tensor {parallel.tensor}"


def exactness() -> str:
    """Whether a run that was cut off and gone on with ends, to the bit, as one that was not, on these devices."""
    platform = jax.devices()[0].platform
    flags = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
    if platform == "cpu":
        return "on these cpu devices a resumed run is bit-identical to an uninterrupted one"
    if platform != "gpu" or all(flag in os.environ.get("XLA_FLAGS", "") for flag in flags.split()):
        return f"on these {platform} devices a resumed run should be bit-identical to an uninterrupted one: not tried"
    return f"on gpu a resumed run is bit-identical only with XLA_FLAGS='{flags}' (atomics, choice of kernels)"


def by_jit(parallel: Parallel, accumulate: int) -> Runner:
    shared = (parallel.fsdp, parallel.tensor)
    sizes = (len(jax.devices()) // math.prod(shared), *shared)
    mesh = jax.make_mesh(sizes, AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    everywhere, by_row = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, ROWS)

    def shardings(tree: Any) -> Any:
        """Of a state, whose carry is of rows; or of parameters."""
        carry = tree.carry if isinstance(tree, TrainState) else None
        found = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(tree, *shared))
        return found if carry is None else found.replace(carry=jax.tree.map(lambda _: by_row, carry))

    def constrained(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(state: TrainState, batch: Any) -> Any:
            after, told = step(state, batch)
            told = jax.lax.with_sharding_constraint(told, everywhere)
            return jax.lax.with_sharding_constraint(after, shardings(after)), told

        return run

    def own(rows: int) -> np.ndarray:
        places = by_row.addressable_devices_indices_map((rows,)).values()
        return np.unique(np.concatenate([np.arange(rows)[place] for place in places]))

    def feed(batch: Any) -> Any:
        if jax.process_count() == 1:
            return jax.device_put(batch, by_row)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(by_row, x), batch)

    def like(shapes: TrainState) -> TrainState:
        def placed(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

        found = jax.tree.map(placed, shapes, shardings(shapes))
        return dataclasses.replace(found, carry=shapes.carry)  # its rows are fitted first

    return Runner(
        axis=None,
        parts=sizes[0] * sizes[1] * accumulate,
        own=own,
        like=like,
        create=lambda make: jax.jit(make, out_shardings=shardings(jax.eval_shape(make)))(),
        place=lambda tree: jax.tree.map(put, tree, shardings(tree)),
        feed=feed,
        compile=lambda step: jax.jit(constrained(step), donate_argnums=0),
        fetch=functools.partial(whole, everywhere=everywhere),
        saved=lambda state: state,
    )


def put(x: Any, sharding: NamedSharding) -> jax.Array:
    """An array, the same in all processes, onto the devices."""
    if jax.process_count() == 1 or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def whole(tree: Any, everywhere: NamedSharding) -> Any:
    """A tree of which every device of this process has all."""
    if all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
        return tree if jax.process_count() == 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)
    return whole(_spread(everywhere)(tree), everywhere)


@functools.cache
def _spread(everywhere: NamedSharding) -> Callable[[Any], Any]:
    """One function for all fetches, so that it is compiled once."""
    return jax.jit(lambda x: x, out_shardings=everywhere)


def by_pmap(accumulate: int) -> Runner:
    """The same arithmetic, one program a device."""
    count, here = len(jax.devices()), len(jax.local_devices())
    places = np.array([i for i, device in enumerate(jax.devices()) if device.process_index == jax.process_index()])

    def split(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(here, -1, *x.shape[1:]), tree)

    def own(rows: int) -> np.ndarray:
        return np.arange(rows).reshape(count, -1)[places].ravel()

    def place(tree: Any) -> Any:
        """A copy of the tree for each device; a state's carry is of rows, and split."""
        placed = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (here, *np.shape(x))), tree)
        if isinstance(tree, TrainState):
            carry = jax.tree.map(lambda x: np.asarray(x)[own(len(x))], tree.carry)
            placed = placed.replace(carry=split(carry))
        return placed

    def first(x: Any) -> Any:
        # A device's own piece: indexing the whole array would be one more program on all devices, which may wait
        # for ever for the step that is under way.
        return x.addressable_shards[0].data[0] if isinstance(x, jax.Array) else x[0]

    def fetch(tree: Any) -> Any:
        fetched = jax.tree.map(first, tree)
        if isinstance(tree, TrainState):
            fetched = fetched.replace(carry=jax.tree.map(all_rows, tree.carry))
        return fetched

    def all_rows(x: Any) -> np.ndarray:
        """[devices here, B ...] of every process, one behind the other."""
        if jax.process_count() == 1:
            return np.asarray(x).reshape(-1, *x.shape[2:])
        from jax.experimental import multihost_utils

        mine = np.stack([np.asarray(shard.data[0]) for shard in x.addressable_shards])
        return np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, *x.shape[2:])

    return Runner(
        axis=AXIS,
        parts=count * accumulate,
        own=own,
        like=lambda shapes: shapes,
        create=lambda make: place(make()),
        place=place,
        feed=split,
        compile=lambda step: jax.pmap(step, axis_name=AXIS, donate_argnums=0),
        fetch=fetch,
        saved=lambda state: jax.tree.map(np.asarray, fetch(state)),
    )


def asked_of_any(asked: bool) -> jax.Array:
    """Whether any process asks: computed on the devices in its turn, so that all processes learn it of one step."""
    by_device, of_any = _agreement()
    return of_any(jax.make_array_from_process_local_data(by_device, np.full(len(jax.local_devices()), asked)))


@functools.cache
def _agreement() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    mesh = jax.make_mesh((len(jax.devices()),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec(AXIS)), jax.jit(jnp.any, out_shardings=everywhere)
