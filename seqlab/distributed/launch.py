"""The launcher of several processes on this machine, which end together.

No process outlives the launcher: on Linux the kernel kills them when it dies, even of SIGKILL. Each process leads a
group of its own, so that its children are killed with it.
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
PR_SET_PDEATHSIG = 1  # of prctl(2)
LIBC = ctypes.CDLL(None)  # opened here, because little is safe between fork and exec


def seqlab_commands(arguments: Sequence[str], processes: int, gpus_each: int = 0) -> list[list[str]]:
    """Returns the commands of `processes` processes for one `seqlab ARGUMENTS`, connected at a free port.

    With `gpus_each` each process sees that many GPUs of its own, of those in CUDA_VISIBLE_DEVICES or of all.
    """
    check_minimum("--processes", processes, 1)
    check_minimum("--gpus-each", gpus_each, 0)
    if not arguments or arguments[0] not in COMMANDS:
        raise SeqlabError(f"seqlab launch --processes N -- COMMAND ...: COMMAND is one of {', '.join(COMMANDS)}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(processes * gpus_each)]
    if len(gpus) < processes * gpus_each:
        raise SeqlabError(f"{processes} processes of {gpus_each} GPUs each, and CUDA_VISIBLE_DEVICES has {len(gpus)}")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def command(i: int) -> list[str]:
        environment = f"CUDA_VISIBLE_DEVICES={','.join(gpus[i * gpus_each : (i + 1) * gpus_each])}"
        coordination = ["--coordinator", f"localhost:{port}", "--processes", str(processes), "--process", str(i)]
        return [
            *(["env", environment] if gpus_each else []),
            sys.executable,
            "-m",
            "seqlab.cli",
            *arguments,
            *coordination,
        ]

    return [command(i) for i in range(processes)]


def launch(commands: Sequence[Sequence[str]], grace: float = 30.0) -> int:
    """Runs all commands at once until each has ended, and returns the exit code.

    The first command has this process's input and output. Lines of the others go to standard error, prefixed by their
    number. SIGTERM, SIGINT and SIGHUP (as SIGTERM) are passed on to all. When a process fails, it is named, the
    others get SIGTERM and their output is no longer shown, and those that still run after `grace` seconds get
    SIGKILL. The code is 0; 75 if some ended with 75 and none failed; or that of the first failure, 128 + N for signal
    N. Must be called in the main thread.
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
    """Gives a queue that receives these signals in place of their handlers. Ignored signals (nohup) stay ignored."""
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
    """Starts a process in a session of its own: a terminal's interrupt reaches it only through the launcher."""
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
    if os.getppid() != launcher:  # it has died already
        os._exit(1)


def kill_group(process: Process) -> None:
    """Kills a process, if it still runs, and all processes of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says the second
        os.killpg(process.pid, signal.SIGKILL)


def relay(number: int, process: Process, silent: set[int]) -> threading.Thread:
    """Starts a thread that copies the output of a process to standard error, unless its number is in `silent`."""
    prefix = f"[{number}] ".encode() if number else b""

    def run() -> None:
        for line in process.stdout or process.stderr or ():
            if number not in silent:
                with contextlib.suppress(OSError):  # nobody reads it: the process need not wait
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
    """Waits for all processes, passes signals on, and stops the others when one fails. Returns the exit code."""
    running = dict(enumerate(processes))
    codes: set[int] = set()
    requested_signal = deadline = None
    failed = 0
    while running:
        left = POLL if deadline is None else min(POLL, max(deadline - time.monotonic(), 0.0))
        try:
            event = events.get(timeout=left)
        except Empty:
            # Python handles a signal that arrives just before `get` blocks only after `get` returns: look without it.
            event = signal.SIGCHLD
            if deadline is not None and time.monotonic() >= deadline:
                say(f"{grace:g} s later {format_processes(running)} still there: killed")
                for process in running.values():
                    kill_group(process)
                deadline = None
        if event != signal.SIGCHLD:
            requested_signal = signal.SIGTERM if event == signal.SIGHUP else event
            say(f"{event.name}: passed on to {format_processes(running)}")
            for process in running.values():
                process.send_signal(requested_signal)
        ended = {i: process for i, process in running.items() if process.poll() is not None}
        for i, process in ended.items():
            kill_group(running.pop(i))
            codes.add(process.returncode)
        bad = {i: process.returncode for i, process in ended.items() if process.returncode not in (0, EXIT_STOPPED)}
        if not bad or failed:
            continue
        silent.update(running)  # their further output would be about the first failure
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
    hint = ": often that is the system, out of memory" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code}, {signal.strsignal(-code)}{hint}"


def format_processes(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is closed
        print(f"seqlab launch: {line}", file=sys.stderr, flush=True)
