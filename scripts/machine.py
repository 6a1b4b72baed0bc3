"""The machine, package versions and commit that are recorded with each result; and a function that runs commands."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs `python ARGUMENTS` in the project root, and yields and prints the lines that it prints. Raises
    CalledProcessError if it fails.
    """
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                yield line
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {cores} core{'' if cores == 1 else 's'}"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of the packages that are installed, sorted by name."""
    installed = {package.name.lower().replace("_", "-"): package.version for package in distributions()}
    return {name: installed[name] for name in sorted(packages) if name in installed}


def commit() -> str | None:
    """Returns the commit of the code, and whether files differ from it; None outside a git repository."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        except OSError:
            return ""

    changed = git("status", "--porcelain", "--", "seqlab", "scripts", "configs", "pyproject.toml")
    return (git("rev-parse", "--short", "HEAD") + (", with changes" if changed else "")) or None
