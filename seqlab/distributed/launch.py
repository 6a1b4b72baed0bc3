"""Several processes on this machine that stand and fall together.

None outlives the launcher: on Linux the kernel kills them when it dies, even of SIGKILL. Each leads a group of its
own, so that what it has started and left behind is killed with it.
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

from seqlab.system.errors import SeqlabError, at_least

Process = subprocess.Popen[bytes]

SAVED = 75  # EX_TEMPFAIL of sysexits.h: stopped as asked, saved, to be started again
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMMANDS = ("train", "decode", "evaluate")
LAST_WORDS = 1.0  # seconds until what a process wrote has been shown, once it has ended
POLL = 0.5  # seconds between looks for signals that were not noticed as they came
PR_SET_PDEATHSIG = 1  # of prctl(2)
LIBC = ctypes.CDLL(None)  # opened here, for between fork and exec as little as possible is done


def seqlab_commands(arguments: Sequence[str], processes: int, gpus_each: int = 0) -> list[list[str]]:
    """What `processes` processes run for one `seqlab ARGUMENTS`; they meet at a free port of this machine.

    With `gpus_each` a process sees so many GPUs of its own, of those in CUDA_VISIBLE_DEVICES or of all.
    """
    at_least("--processes", processes, 1)
    at_least("--gpus-each", gpus_each, 0)
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
        own = f"CUDA_VISIBLE_DEVICES={','.join(gpus[i * gpus_each : (i + 1) * gpus_each])}"
        place = ["--coordinator", f"localhost:{port}", "--processes", str(processes), "--process", str(i)]
        return [*(["env", own] if gpus_each else []), sys.executable, "-m", "seqlab.cli", *arguments, *place]

    return [command(i) for i in range(processes)]


def launch(commands: Sequence[Sequence[str]], grace: float = 30.0) -> int:
    """Runs all commands at once until each has ended, and gives the exit code for it.

    The first has this process's own input and output; lines of the others go to standard error, behind their number.
    SIGTERM, SIGINT and SIGHUP (as SIGTERM) are passed on to all. When one ends badly, it is named, the others get
    SIGTERM and are shown no more, and what is left after `grace` seconds gets SIGKILL. The code is 0; 75 if some
    ended with it and none badly; or that of the first that ended badly, 128 + N for signal N. Must be called in the
    main thread.
    """
    processes: list[Process] = []
    with heard(*PASSED_ON, signal.SIGCHLD) as events:
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
def heard(*signals: signal.Signals) -> Iterator[SimpleQueue[signal.Signals]]:
    """A queue that these signals go into, in the place of what they did; what was ignored (nohup) still is."""
    queue: SimpleQueue[signal.Signals] = SimpleQueue()
    before = {one: signal.getsignal(one) for one in signals}
    try:
        for one, handler in before.items():
            if handler is not signal.SIG_IGN or one == signal.SIGCHLD:
                signal.signal(one, lambda number, _: queue.put(signal.Signals(number)))
        yield queue
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def start(command: Sequence[str], first: bool) -> Process:
    """A process in a session of its own: a terminal's interrupt reaches it through the launcher alone."""
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
    """Has the kernel kill this process when the launcher dies; run between fork and exec."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:  # it has died already
        os._exit(1)


def kill_group(process: Process) -> None:
    """Ends a process, if it still runs, and all that it started in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says the second
        os.killpg(process.pid, signal.SIGKILL)


def relay(number: int, process: Process, silent: set[int]) -> threading.Thread:
    """Shows on standard error what a process writes, as it comes, unless its number is in `silent` by then."""
    prefix = f"[{number}] ".encode() if number else b""

    def run() -> None:
        for line in process.stdout or process.stderr or ():
            if number not in silent:
                with contextlib.suppress(OSError):  # nobody reads any more, for which the process need not wait
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
    """Waits for all; passes signals on; stops the others when one ends badly. Gives the exit code of `launch`."""
    running = dict(enumerate(processes))
    codes: set[int] = set()
    asked = deadline = None
    failed = 0
    while running:
        left = POLL if deadline is None else min(POLL, max(deadline - time.monotonic(), 0.0))
        try:
            event = events.get(timeout=left)
        except Empty:
            # Python handles a signal that arrives just before `get` blocks only after `get` returns: look without it.
            event = signal.SIGCHLD
            if deadline is not None and time.monotonic() >= deadline:
                say(f"{grace:g} s later {listed(running)} still there: killed")
                for process in running.values():
                    kill_group(process)
                deadline = None
        if event != signal.SIGCHLD:
            asked = signal.SIGTERM if event == signal.SIGHUP else event
            say(f"{event.name}: passed on to {listed(running)}")
            for process in running.values():
                process.send_signal(asked)
        ended = {i: process for i, process in running.items() if process.poll() is not None}
        for i, process in ended.items():
            kill_group(running.pop(i))
            codes.add(process.returncode)
        bad = {i: process.returncode for i, process in ended.items() if process.returncode not in (0, SAVED)}
        if not bad or failed:
            continue
        silent.update(running)  # what follows of theirs is of the first's death
        for i, code in bad.items():
            failed = failed or (code if code > 0 else 128 - code)
            if asked is None or code not in (-asked, 128 + asked):
                relays[i].join(LAST_WORDS)
                say(f"process {i} {how_it_ended(code)}")
        if running:
            say(f"stopping {listed(running)}")
            for process in running.values():
                process.terminate()
            deadline = time.monotonic() + grace
    for thread in relays:
        thread.join(LAST_WORDS)
    return failed or max(codes, default=0)


def how_it_ended(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    hint = ": often that is the system, out of memory" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code}, {signal.strsignal(-code)}{hint}"


def listed(numbers: Iterable[int]) -> str:
    numbers = list(numbers)
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def say(line: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that has gone
        print(f"seqlab launch: {line}", file=sys.stderr, flush=True)
