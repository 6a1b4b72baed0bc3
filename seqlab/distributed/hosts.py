"""Several processes, on one machine or many, that work as one: finding one another, waiting, telling, agreeing."""

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

LONGEST_WAIT = 24 * 3600  # seconds that one process may prepare data while others wait

_barriers = itertools.count()


def connect(coordinator: str, processes: int | None = None, process: int | None = None, heartbeat: int = 100) -> None:
    """Makes this process one of several. To be called before JAX is asked for anything.

    `coordinator` is "host:port" of process 0, with the number of `processes` and which of them this is; or "auto":
    as Slurm, a TPU pod, Kubernetes or Open MPI say. A process that gives no sign of life for `heartbeat` seconds is
    given up. Raises `SeqlabError` where the others are not found.
    """
    given = (processes, process)
    if coordinator == "auto":
        if given != (None, None):
            raise SeqlabError("--coordinator auto finds out --processes and --process itself: leave them out")
        address = None
    else:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            wanted = "HOST:PORT of process 0, a PORT from 1 to 65535, or auto"
            raise SeqlabError(f"--coordinator is {wanted}, not {coordinator!r}")
        if processes is None or process is None or not 0 <= process < processes:
            raise SeqlabError("--coordinator HOST:PORT needs --processes N and --process I, from 0 to N - 1")
        if process == 0:
            check_port(int(port), coordinator)
        address = coordinator
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        # In a thread: where this one waited for the others, no signal would be heard.
        begin = ThreadPoolExecutor(1).submit
        begin(jax.distributed.initialize, address, *given, heartbeat_timeout_seconds=heartbeat).result()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        hint = " Give --coordinator HOST:PORT --processes N --process I" if address is None else ""
        raise SeqlabError(f"the other processes were not found: {reason}.{hint}") from None


def check_port(port: int, coordinator: str) -> None:
    """Raises where process 0 could not listen, on all addresses of its machine, as JAX will."""
    two = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if two else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=two).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SeqlabError(
            f"--coordinator {coordinator}: process 0, here, cannot listen at port {port} ({reason}): choose another"
        ) from None


def connected() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized()


def is_process_zero() -> bool:
    """Whether this process is the one that writes and tells."""
    return jax.process_index() == 0


def wait_for_all() -> None:
    """Returns when every process has come here, however long one takes."""
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(key=f"seqlab-{next(_barriers)}", timeout_ms=1000 * LONGEST_WAIT)


def gather(value: Any) -> list[Any]:
    """What every process has, process 0's first: plain values, as JSON knows them."""
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    wait_for_all()  # however long: a collective operation is given up after seconds on some devices
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array([len(text)], np.int32))).ravel()
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(text)] = text
    found = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [json.loads(row[:size].tobytes()) for row, size in zip(found, sizes.tolist(), strict=True)]


def on_process_zero(do: Callable[[], Any]) -> Any:
    """What `do` gives in process 0, which alone does it: plain values. All processes raise its `SeqlabError`."""
    found, error = None, None
    if is_process_zero():
        try:
            found = do()
        except SeqlabError as raised:
            error = str(raised)
    found, error = gather([found, error])[0]
    if error is not None:
        raise SeqlabError(error)
    return found


def check_alike(what: str, content: bytes) -> None:
    """Raises where the processes do not have the same bytes."""
    digests = gather(hashlib.sha256(content).hexdigest())
    other = next((i for i, digest in enumerate(digests) if digest != digests[0]), None)
    if other is not None:
        raise SeqlabError(f"processes 0 and {other} have not the same {what}")


def share_of(count: int) -> range:
    """Which of `count` things, in order, are this process's."""
    return part_of(count, jax.process_index(), jax.process_count())


def part_of(count: int, index: int, parts: int) -> range:
    """Which of `count` things, in order, are in part `index`, from 0 on; all parts one behind the other are all."""
    return range(index * count // parts, (index + 1) * count // parts)
