"""The launcher of several processes on one machine, which end together.

On Linux no process outlives the launcher: the kernel kills the processes when the launcher dies, even by SIGKILL.
Each process leads its own process group, so that its children are killed with it.
"""

import contextlib
import ctypes
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue

from seqlab.system.checks import check_minimum
from seqlab.system.errors import EXIT_STOPPED, SeqlabError

Process = subprocess.Popen[bytes]

FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMMANDS = ("train", "decode", "evaluate")
OUTPUT_TIMEOUT = 1.0  # seconds to wait for the output of a process that has ended
POLL = 0.5  # seconds between polls for signals that were missed
PR_SET_PDEATHSIG = 1  # an operation of prctl(2)
LIBC = ctypes.CDLL(None)  # opened here, because few calls are safe between fork and exec


def seqlab_commands(arguments: Sequence[str], processes: int, gpus_each: int = 0) -> list[list[str]]:
    """Returns the commands of `processes` processes that run `seqlab ARGUMENTS` together, connected at a free port.

    With `gpus_each`, each process sees only its own GPUs, taken from CUDA_VISIBLE_DEVICES or from all GPUs.
    """
    check_minimum("--processes", processes, 1)
    check_minimum("--gpus-each", gpus_each, 0)
    if not arguments or arguments[0] not in COMMANDS:
        raise SeqlabError(f"seqlab launch --processes N -- COMMAND ...: COMMAND must be one of {', '.join(COMMANDS)}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(processes * gpus_each)]
    if len(gpus) < processes * gpus_each:
        raise SeqlabError(
            f"{processes} processes need {gpus_each} GPUs each, but CUDA_VISIBLE_DEVICES lists {len(gpus)}: lower "
            "--processes or --gpus-each"
        )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def command(i: int) -> list[str]:
        devices = f"CUDA_VISIBLE_DEVICES={','.join(gpus[i * gpus_each : (i + 1) * gpus_each])}"
        # Without this variable, JAX silently uses the CPU if there is no GPU.
        platform = f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', 'cuda')}"
        coordination = ["--coordinator", f"localhost:{port}", "--processes", str(processes), "--process", str(i)]
        return [
            *(["env", devices, platform] if gpus_each else []),
            sys.executable,
            "-m",
            "seqlab.cli",
            *arguments,
            *coordination,
        ]

    return [command(i) for i in range(processes)]


def launch(commands: Sequence[Sequence[str]], grace: float = 30.0) -> int:
    """Runs all commands concurrently until each has ended, and returns the exit code.

    The first command inherits the standard input and output. The output of the others goes to standard error, each
    line prefixed by the number of its process. SIGTERM, SIGINT and SIGHUP (as SIGTERM) are forwarded to all. When a
    process fails, the failure is reported, the output of the others is hidden, and they receive SIGTERM, or SIGKILL
    if they still run after `grace` seconds. The exit code is 0; 75 if some ended with 75 and none failed; or the code
    of the first failure, 128 + N for signal N. Must be called in the main thread.
    """
    processes: list[Process] = []
    with signal_queue(*FORWARDED_SIGNALS, signal.SIGCHLD) as events:
        try:
            for i, command in enumerate(commands):
                processes.append(start(command, first=i == 0))
            silent: set[int] = set()
            relays = [relay(i, process, silent) for i, process in enumerate(processes)]
            return watch(processes, relays, silent, events, grace)
        finally:
            for process in processes:
                if process.poll() is None:
                    kill_group(process)
                    process.wait()


@contextlib.contextmanager
def signal_queue(*signals: signal.Signals) -> Iterator[SimpleQueue[signal.Signals]]:
    """Yields a queue that receives these signals in place of their handlers. Ignored signals (nohup) stay ignored."""
    queue: SimpleQueue[signal.Signals] = SimpleQueue()
    before = {handled: signal.getsignal(handled) for handled in signals}
    try:
        for handled, handler in before.items():
            if handler is not signal.SIG_IGN or handled == signal.SIGCHLD:
                signal.signal(handled, lambda number, _: queue.put(signal.Signals(number)))
        yield queue
    finally:
        for handled, handler in before.items():
            signal.signal(handled, handler)


def start(command: Sequence[str], first: bool) -> Process:
    """Starts a process in a new session, so that an interrupt from the terminal reaches it only via the launcher."""
    own_terminal = first and sys.stderr.isatty()
    return subprocess.Popen(
        command,
        stdin=None if first else subprocess.DEVNULL,
        stdout=None if first else subprocess.PIPE,
        stderr=None if own_terminal else subprocess.PIPE if first else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=functools.partial(die_with, os.getpid()) if sys.platform == "linux" else None,
    )


def die_with(launcher: int) -> None:
    """Makes the kernel kill this process when the launcher dies. Runs between fork and exec."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:  # the launcher has already died
        os._exit(1)


def kill_group(process: Process) -> None:
    """Kills a process, if it still runs, and all processes of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # no process is left (macOS raises the second)
        os.killpg(process.pid, signal.SIGKILL)


def relay(number: int, process: Process, silent: set[int]) -> threading.Thread:
    """Starts a thread that copies the output of a process to standard error, unless its number is in `silent`."""
    prefix = f"[{number}] ".encode() if number else b""

    def run() -> None:
        for line in process.stdout or process.stderr or ():
            if number not in silent:
                with contextlib.suppress(OSError):  # standard error is closed; the process must not block
                    sys.stderr.buffer.write(prefix + line)
                    sys.stderr.buffer.flush()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def watch(
    processes: Sequence[Process],
    relays: Sequence[threading.Thread],
    silent: set[int],
    events: SimpleQueue[signal.Signals],
    grace: float,
) -> int:
    """Waits for all processes, forwards signals, and stops the others when one fails. Returns the exit code."""
    running = dict(enumerate(processes))
    codes: set[int] = set()
    requested_signal = deadline = None
    failed = 0
    while running:
        left = POLL if deadline is None else min(POLL, max(deadline - time.monotonic(), 0.0))
        try:
            event = events.get(timeout=left)
        except Empty:
            # Python handles a signal that arrives just before `get` blocks only after `get` returns: poll anyway.
            event = signal.SIGCHLD
            if deadline is not None and time.monotonic() >= deadline:
                say(f"{format_processes(running)} still running after {grace:g} s: killed")
                for process in running.values():
                    kill_group(process)
                deadline = None
        if event != signal.SIGCHLD:
            requested_signal = signal.SIGTERM if event == signal.SIGHUP else event
            say(f"{event.name}: forwarded to {format_processes(running)}")
            for process in running.values():
                process.send_signal(requested_signal)
        ended = {i: process for i, process in running.items() if process.poll() is not None}
        for i, process in ended.items():
            kill_group(running.pop(i))
            codes.add(process.returncode)
        bad = {i: process.returncode for i, process in ended.items() if process.returncode not in (0, EXIT_STOPPED)}
        if not bad or failed:
            continue
        silent.update(running)  # their further output would only be a consequence of the first failure
        for i, code in bad.items():
            failed = failed or (code if code > 0 else 128 - code)
            if requested_signal is None or code not in (-requested_signal, 128 + requested_signal):
                relays[i].join(OUTPUT_TIMEOUT)
                say(f"process {i} {describe_exit(code)}")
        if running:
            say(f"stopping {format_processes(running)}")
            for process in running.values():
                process.terminate()
            deadline = time.monotonic() + grace
    for thread in relays:
        thread.join(OUTPUT_TIMEOUT)
    return failed or max(codes, default=0)


def describe_exit(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    hint = ": often because the system is out of memory" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code}, {signal.strsignal(-code)}{hint}"


def format_processes(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is closed
        print(f"seqlab launch: {line}", file=sys.stderr, flush=True)
