"""Communication between several processes, on one machine or many: connections, barriers and gathering of values."""

import hashlib
import itertools
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from seqlab.system.errors import SeqlabError

MAX_WAIT = 24 * 3600  # seconds that the other processes wait while one process prepares data

_barriers = itertools.count()


def connect(coordinator: str, processes: int | None = None, process: int | None = None, heartbeat: int = 100) -> None:
    """Connects this process to the other processes. Must be called before JAX is used.

    `coordinator` is "host:port" of process 0, with the number of `processes` and the index of this `process`; or
    "auto", which reads these from Slurm, a TPU pod, Kubernetes or Open MPI. A process that sends no heartbeat for
    `heartbeat` seconds counts as lost. Raises `SeqlabError` if the other processes are not found.
    """
    process_numbers = (processes, process)
    if coordinator == "auto":
        if process_numbers != (None, None):
            raise SeqlabError("--coordinator auto detects --processes and --process: remove these options")
        address = None
    else:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            form = "HOST:PORT of process 0, with a PORT from 1 to 65535, or auto"
            raise SeqlabError(f"--coordinator must be {form}, not {coordinator!r}")
        if processes is None or process is None or not 0 <= process < processes:
            raise SeqlabError("--coordinator HOST:PORT needs --processes N and --process I, with I from 0 to N - 1")
        if process == 0:
            check_port(int(port), coordinator)
        address = coordinator
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        # In another thread, because the main thread handles no signals while it waits for the other processes.
        begin = ThreadPoolExecutor(1).submit
        begin(jax.distributed.initialize, address, *process_numbers, heartbeat_timeout_seconds=heartbeat).result()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        hint = " Use --coordinator HOST:PORT --processes N --process I" if address is None else ""
        raise SeqlabError(f"the other processes were not found: {reason}.{hint}") from None


def check_port(port: int, coordinator: str) -> None:
    """Raises `SeqlabError` if process 0 cannot listen on all addresses of its machine, as JAX will."""
    dualstack = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dualstack else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dualstack).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SeqlabError(
            f"--coordinator {coordinator}: this process, process 0, cannot listen on port {port} ({reason}): choose "
            "another port"
        ) from None


def connected() -> bool:
    """Returns whether this process is connected to other processes."""
    return jax.distributed.is_initialized()


def is_process_zero() -> bool:
    """Returns whether this process is process 0, which writes files and prints."""
    return jax.process_index() == 0


def wait_for_all() -> None:
    """Waits until every process has called it, for at most `MAX_WAIT` seconds."""
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(key=f"seqlab-{next(_barriers)}", timeout_ms=1000 * MAX_WAIT)


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, in the order of the processes. Values are JSON values."""
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    wait_for_all()  # on some devices a collective operation times out after seconds
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array([len(text)], np.int32))).ravel()
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes.tolist(), strict=True)]


def on_process_zero(function: Callable[[], Any]) -> Any:
    """Returns the JSON value of `function()`, which only process 0 calls. All processes raise its `SeqlabError`."""
    result, error = None, None
    if is_process_zero():
        try:
            result = function()
        except SeqlabError as raised:
            error = str(raised)
    result, error = gather([result, error])[0]
    if error is not None:
        raise SeqlabError(error)
    return result


def check_equal_across_processes(name: str, content: bytes) -> None:
    """Raises `SeqlabError` if the processes have different `content`."""
    digests = gather(hashlib.sha256(content).hexdigest())
    different = next((i for i, digest in enumerate(digests) if digest != digests[0]), None)
    if different is not None:
        raise SeqlabError(f"processes 0 and {different} do not have the same {name}")


def share_of(count: int) -> range:
    """Returns the range of `count` ordered items that belongs to this process."""
    return part_of(count, jax.process_index(), jax.process_count())


def part_of(count: int, index: int, parts: int) -> range:
    """Returns the range of `count` ordered items in part `index` of `parts`. The parts, in order, cover all items."""
    return range(index * count // parts, (index + 1) * count // parts)
