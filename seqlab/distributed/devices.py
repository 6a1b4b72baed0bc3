"""Runners of a training step on many devices: jit over a mesh of data, fsdp and tensor axes, or pmap. The devices may
belong to several processes, each of which holds only its own rows.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seqlab.config import Parallel
from seqlab.data.plans import BatchPlan
from seqlab.distributed.sharding import specs
from seqlab.layers.axes import AxesByPath
from seqlab.system.errors import SeqlabError
from seqlab.types import TrainState

AXIS = "data"  # the axis of pmap
AXES = ("data", "fsdp", "tensor")  # the axes of the mesh
ROWS = PartitionSpec(("data", "fsdp"))
REPLICATED = Parallel()  # every device has all parameters
NO_AXES: AxesByPath = MappingProxyType({})


class Runner(NamedTuple):
    """Functions that place a state and a batch on the devices, run a step, and fetch the state."""

    axis: str | None  # the axis that `make_step` sums over
    parts: int  # the number of rows must be a multiple of it
    local_rows: Callable[[int], np.ndarray]  # from a number of rows to the indices of the rows of this process
    restore_targets: Callable[[TrainState], TrainState]  # from the shapes of a state to sharded shapes to restore
    create: Callable[[Callable[[], Any]], Any]  # calls a function that makes a state, on the devices
    place: Callable[[Any], Any]  # moves a state or parameters to the devices
    feed: Callable[[Any], Any]  # moves this process's rows of a batch to its devices
    compile: Callable[[Callable[..., Any]], Callable[..., Any]]  # compiles a step that donates its state
    fetch: Callable[[Any], Any]  # returns a full copy of a state, or of the metrics of a step, for this process
    to_saved: Callable[[Any], Any]  # converts a state to the shapes of a checkpoint, on any devices


def fill_rows(batch: Any, parts: int) -> Any:
    """Pads NumPy arrays [B ...] with rows of zeros to a multiple of `parts`. The added rows have weight zero."""
    return jax.tree.map(lambda x: fit_rows(x, -(-len(x) // parts) * parts), batch)


def fit_rows(x: np.ndarray, rows: int) -> np.ndarray:
    """Returns [B ...] with `rows` rows: appends rows of zeros, or removes the last rows."""
    missing = rows - len(x)
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing > 0 else x[:rows]


def make_runner(parallel: Parallel = REPLICATED, accumulate: int = 1, axes: AxesByPath = NO_AXES) -> Runner:
    """Returns the runner for all devices of all processes. Batches are processed in `accumulate` parts.

    `axes` are the axes of the parameters, which define how they are sharded.
    """
    check_devices(parallel)
    if parallel.name == "pmap":
        return make_pmap_runner(accumulate)
    return make_jit_runner(parallel, accumulate, axes)


def check_devices(parallel: Parallel) -> None:
    """Raises `SeqlabError` if `parallel` does not fit the number of devices."""
    count, sharing = len(jax.devices()), parallel.fsdp * parallel.tensor
    if count % sharing:
        raise SeqlabError(
            f"parallel.fsdp {parallel.fsdp} times parallel.tensor {parallel.tensor} does not divide {count} device(s)"
        )


def collate_local_rows(runner: Runner, collate: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that collates this process's rows of a batch plan, with padding rows."""

    def collate_rows(batch_plan: BatchPlan, **options: Any) -> Any:
        indices = runner.local_rows(-(-batch_plan.row_count // runner.parts) * runner.parts)
        return jax.tree.map(lambda x: fit_rows(x, len(indices)), collate(batch_plan.only(indices), **options))

    return collate_rows


def describe_devices(parallel: Parallel) -> str:
    """Returns a line that describes the devices and their mesh."""
    devices, processes = jax.devices(), jax.process_count()
    description = f"{len(devices)} {devices[0].platform} device(s)"
    if processes > 1:
        description += f" of {processes} processes"
    if parallel.name == "pmap":
        return f"{description}, by pmap"
    sharing = parallel.fsdp * parallel.tensor
    return f"{description}: data {len(devices) // sharing} x fsdp {parallel.fsdp} x tensor {parallel.tensor}"


def describe_determinism() -> str:
    """Returns a line that says whether a resumed run is bit-identical to an uninterrupted one on these devices."""
    platform = jax.devices()[0].platform
    flags = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
    if platform == "cpu":
        return "on these cpu devices a resumed run is bit-identical to an uninterrupted one"
    if platform != "gpu" or all(flag in os.environ.get("XLA_FLAGS", "") for flag in flags.split()):
        return f"on these {platform} devices a resumed run should be bit-identical to an uninterrupted one (untested)"
    return f"on gpu a resumed run is bit-identical only with XLA_FLAGS='{flags}' (atomics, choice of kernels)"


def make_jit_runner(parallel: Parallel, accumulate: int, axes: AxesByPath) -> Runner:
    shared = (parallel.fsdp, parallel.tensor)
    sizes = (len(jax.devices()) // math.prod(shared), *shared)
    mesh = jax.make_mesh(sizes, AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    everywhere, by_row = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, ROWS)

    def shardings(tree: Any) -> Any:
        """Returns the shardings of a state, whose carry is sharded by row, or of parameters."""
        carry = tree.carry if isinstance(tree, TrainState) else None
        state_shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(tree, axes, *shared))
        return (
            state_shardings if carry is None else state_shardings.replace(carry=jax.tree.map(lambda _: by_row, carry))
        )

    def constrained(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(state: TrainState, batch: Any, *references: Any) -> Any:
            after, metrics = step(state, batch, *references)
            metrics = jax.lax.with_sharding_constraint(metrics, everywhere)
            return jax.lax.with_sharding_constraint(after, shardings(after)), metrics

        return run

    def local_rows(rows: int) -> np.ndarray:
        places = by_row.addressable_devices_indices_map((rows,)).values()
        return np.unique(np.concatenate([np.arange(rows)[place] for place in places]))

    def feed(batch: Any) -> Any:
        if jax.process_count() == 1:
            return jax.device_put(batch, by_row)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(by_row, x), batch)

    def restore_targets(shapes: TrainState) -> TrainState:
        def placed(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

        targets = jax.tree.map(placed, shapes, shardings(shapes))
        return dataclasses.replace(targets, carry=shapes.carry)  # its rows are padded or truncated first

    return Runner(
        axis=None,
        parts=sizes[0] * sizes[1] * accumulate,
        local_rows=local_rows,
        restore_targets=restore_targets,
        create=lambda make: jax.jit(make, out_shardings=shardings(jax.eval_shape(make)))(),
        place=lambda tree: jax.tree.map(put_on_devices, tree, shardings(tree)),
        feed=feed,
        compile=lambda step: jax.jit(constrained(step), donate_argnums=0),
        fetch=functools.partial(gather_replicas, everywhere=everywhere),
        to_saved=lambda state: state,
    )


def put_on_devices(x: Any, sharding: NamedSharding) -> jax.Array:
    """Places an array that is the same in all processes on the devices."""
    if jax.process_count() == 1 or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def gather_replicas(tree: Any, everywhere: NamedSharding) -> Any:
    """Returns a tree whose leaves are fully replicated on the devices of this process."""
    if all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
        return tree if jax.process_count() == 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)
    return gather_replicas(_replicator(everywhere)(tree), everywhere)


@functools.cache
def _replicator(everywhere: NamedSharding) -> Callable[[Any], Any]:
    """Returns the same function for all fetches, so that it is compiled once."""
    return jax.jit(lambda x: x, out_shardings=everywhere)


def make_pmap_runner(accumulate: int) -> Runner:
    """Returns a runner with the same arithmetic as jit, but with one program per device."""
    count, local_count = len(jax.devices()), len(jax.local_devices())
    places = np.array([i for i, device in enumerate(jax.devices()) if device.process_index == jax.process_index()])

    def split(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(local_count, -1, *x.shape[1:]), tree)

    def local_rows(rows: int) -> np.ndarray:
        return np.arange(rows).reshape(count, -1)[places].ravel()

    def place(tree: Any) -> Any:
        """Returns a copy of the tree for each device. The carry of a state is split by row instead."""
        placed = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (local_count, *np.shape(x))), tree)
        if isinstance(tree, TrainState):
            carry = jax.tree.map(lambda x: np.asarray(x)[local_rows(len(x))], tree.carry)
            placed = placed.replace(carry=split(carry))
        return placed

    def first(x: Any) -> Any:
        # The shard of a device. Indexing the whole array would run another program on all devices, which may wait
        # forever for the current step.
        return x.addressable_shards[0].data[0] if isinstance(x, jax.Array) else x[0]

    def fetch(tree: Any) -> Any:
        fetched = jax.tree.map(first, tree)
        if isinstance(tree, TrainState):
            fetched = fetched.replace(carry=jax.tree.map(all_rows, tree.carry))
        return fetched

    def all_rows(x: Any) -> np.ndarray:
        """Returns the rows [local devices, B ...] of all processes, concatenated in order."""
        if jax.process_count() == 1:
            return np.asarray(x).reshape(-1, *x.shape[2:])
        from jax.experimental import multihost_utils

        local_carry = np.stack([np.asarray(shard.data[0]) for shard in x.addressable_shards])
        return np.asarray(multihost_utils.process_allgather(local_carry)).reshape(-1, *x.shape[2:])

    return Runner(
        axis=AXIS,
        parts=count * accumulate,
        local_rows=local_rows,
        restore_targets=lambda shapes: shapes,
        create=lambda make: place(make()),
        place=place,
        feed=split,
        compile=lambda step: jax.pmap(step, axis_name=AXIS, donate_argnums=0),
        fetch=fetch,
        to_saved=lambda state: jax.tree.map(np.asarray, fetch(state)),
    )


def any_process_requests(requested: bool) -> jax.Array:
    """Returns whether any process passes True. The devices compute it, so that all processes read it at one step."""
    by_device, of_any = _agreement()
    return of_any(jax.make_array_from_process_local_data(by_device, np.full(len(jax.local_devices()), requested)))


@functools.cache
def _agreement() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    mesh = jax.make_mesh((len(jax.devices()),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec(AXIS)), jax.jit(jnp.any, out_shardings=everywhere)
