"""Runners of a step on many devices: jit over a mesh of data, fsdp and tensor axes, or pmap. The devices may belong
to several processes, each of which holds only its own rows.
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

AXIS = "data"  # of pmap
AXES = ("data", "fsdp", "tensor")  # of the mesh
ROWS = PartitionSpec(("data", "fsdp"))
REPLICATED = Parallel()  # every device has all parameters
NO_AXES: AxesByPath = MappingProxyType({})


class Runner(NamedTuple):
    """Functions that place a state and a batch on the devices, run a step, and fetch the state."""

    axis: str | None  # what `make_step` adds over
    parts: int  # rows are a multiple of it
    local_rows: Callable[[int], np.ndarray]  # the indices of N rows, a multiple of `parts`, that this process holds
    restore_targets: Callable[[TrainState], TrainState]  # from a state's shapes to the placed shapes of a checkpoint
    create: Callable[[Callable[[], Any]], Any]  # the state that a function makes, created on the devices
    place: Callable[[Any], Any]  # a state, or parameters, onto the devices
    feed: Callable[[Any], Any]  # this process's rows of a batch onto its devices
    compile: Callable[[Callable[..., Any]], Callable[..., Any]]  # a step, its state donated
    fetch: Callable[[Any], Any]  # a full copy of a state, or of a step's metrics, for this process
    to_saved: Callable[[Any], Any]  # a state in the shapes of a checkpoint, on any devices


def fill_rows(batch: Any, parts: int) -> Any:
    """Pads NumPy arrays [B ...] with rows of zeros to a multiple of `parts`. The weights of these rows are zero."""
    return jax.tree.map(lambda x: fit_rows(x, -(-len(x) // parts) * parts), batch)


def fit_rows(x: np.ndarray, rows: int) -> np.ndarray:
    """Returns [B ...] with `rows` rows: adds rows of zeros, or removes those added for other devices."""
    missing = rows - len(x)
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing > 0 else x[:rows]


def make_runner(parallel: Parallel = REPLICATED, accumulate: int = 1, axes: AxesByPath = NO_AXES) -> Runner:
    """Returns the runner for all devices of all processes, and batches that are processed in `accumulate` parts.

    `axes` are those of the parameters, by which they are split over devices.
    """
    check_devices(parallel)
    if parallel.name == "pmap":
        return make_pmap_runner(accumulate)
    return make_jit_runner(parallel, accumulate, axes)


def check_devices(parallel: Parallel) -> None:
    """Raises `SeqlabError` where the devices cannot be split as an experiment says."""
    count, sharing = len(jax.devices()), parallel.fsdp * parallel.tensor
    if count % sharing:
        raise SeqlabError(
            f"parallel.fsdp {parallel.fsdp} times parallel.tensor {parallel.tensor} does not divide {count} device(s)"
        )


def collate_local_rows(runner: Runner, collate: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that collates this process's rows of a batch plan, padded; it passes on other arguments."""

    def collate_rows(batch_plan: BatchPlan, **options: Any) -> Any:
        indices = runner.local_rows(-(-batch_plan.row_count // runner.parts) * runner.parts)
        return jax.tree.map(lambda x: fit_rows(x, len(indices)), collate(batch_plan.only(indices), **options))

    return collate_rows


def describe_devices(parallel: Parallel) -> str:
    """Returns a line about the devices and how they are shared."""
    devices, processes = jax.devices(), jax.process_count()
    description = f"{len(devices)} {devices[0].platform} device(s)"
    if processes > 1:
        description += f" of {processes} processes"
    if parallel.name == "pmap":
        return f"{description}, by pmap"
    sharing = parallel.fsdp * parallel.tensor
    return f"{description}: data {len(devices) // sharing} x fsdp {parallel.fsdp} x tensor {parallel.tensor}"


def describe_determinism() -> str:
    """Returns a line about whether a resumed run is bit-identical to an uninterrupted one on these devices."""
    platform = jax.devices()[0].platform
    flags = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
    if platform == "cpu":
        return "on these cpu devices a resumed run is bit-identical to an uninterrupted one"
    if platform != "gpu" or all(flag in os.environ.get("XLA_FLAGS", "") for flag in flags.split()):
        return f"on these {platform} devices a resumed run should be bit-identical to an uninterrupted one: not tried"
    return f"on gpu a resumed run is bit-identical only with XLA_FLAGS='{flags}' (atomics, choice of kernels)"


def make_jit_runner(parallel: Parallel, accumulate: int, axes: AxesByPath) -> Runner:
    shared = (parallel.fsdp, parallel.tensor)
    sizes = (len(jax.devices()) // math.prod(shared), *shared)
    mesh = jax.make_mesh(sizes, AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    everywhere, by_row = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, ROWS)

    def shardings(tree: Any) -> Any:
        """Returns the shardings of a state, whose carry has rows, or of parameters."""
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
        return dataclasses.replace(targets, carry=shapes.carry)  # its rows are fitted first

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
    """Puts an array, which is the same in all processes, onto the devices."""
    if jax.process_count() == 1 or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def gather_replicas(tree: Any, everywhere: NamedSharding) -> Any:
    """Returns a tree that every device of this process holds in full."""
    if all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
        return tree if jax.process_count() == 1 else jax.tree.map(lambda x: x.addressable_data(0), tree)
    return gather_replicas(_replicator(everywhere)(tree), everywhere)


@functools.cache
def _replicator(everywhere: NamedSharding) -> Callable[[Any], Any]:
    """Returns one function for all fetches, so that it is compiled once."""
    return jax.jit(lambda x: x, out_shardings=everywhere)


def make_pmap_runner(accumulate: int) -> Runner:
    """Returns the runner with the same arithmetic and one program for each device."""
    count, local_count = len(jax.devices()), len(jax.local_devices())
    places = np.array([i for i, device in enumerate(jax.devices()) if device.process_index == jax.process_index()])

    def split(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(local_count, -1, *x.shape[1:]), tree)

    def local_rows(rows: int) -> np.ndarray:
        return np.arange(rows).reshape(count, -1)[places].ravel()

    def place(tree: Any) -> Any:
        """A copy of the tree for each device; a state's carry is of rows, and split."""
        placed = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (local_count, *np.shape(x))), tree)
        if isinstance(tree, TrainState):
            carry = jax.tree.map(lambda x: np.asarray(x)[local_rows(len(x))], tree.carry)
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
        """Returns the rows [local devices, B ...] of every process, concatenated in order."""
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
    """Returns whether any process requests it. Computed on the devices, so that all processes get it at one step."""
    by_device, of_any = _agreement()
    return of_any(jax.make_array_from_process_local_data(by_device, np.full(len(jax.local_devices()), requested)))


@functools.cache
def _agreement() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    mesh = jax.make_mesh((len(jax.devices()),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec(AXIS)), jax.jit(jnp.any, out_shardings=everywhere)
