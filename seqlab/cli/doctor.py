"""`seqlab doctor`."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from seqlab.cli.options import DATA_DIR, DataDir
from seqlab.cli.start import dump
from seqlab.system.errors import SeqlabError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "sentencepiece", "sacrebleu", "rouge-score")
ACCELERATORS = {  # a program that is installed with the accelerator, and the package that JAX needs for it
    "nvidia-smi": 'pip install "jax[cuda12]"',
    "tpu-info": 'pip install "jax[tpu]"',
}


def doctor(
    data_dir: DataDir = DATA_DIR,
    json: Annotated[bool, arg(help="Print JSON.")] = False,
) -> None:
    """Report Python, packages, devices, memory and the folders that seqlab uses.

    Example: seqlab doctor
    """
    facts = dict(facts_of(data_dir))
    advice = list(advice_for(facts, data_dir))
    if json:
        print(dump({**facts, "advice": advice}))
        return
    for name, value in facts.items():
        print(f"{name:18} {value}")
    print("\n".join(f"advice: {line}" for line in advice) or "nothing is missing")


def facts_of(data_dir: Path) -> Iterator[tuple[str, str]]:
    """Yields the names and values of the report."""
    from seqlab import __version__
    from seqlab.system import compilation

    yield "seqlab", __version__
    yield "python", f"{platform.python_version()} ({sys.executable})"
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "missing"
    yield "devices", describe_devices()
    yield "cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    yield "memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    yield "data folder", describe_folder(data_dir)
    try:
        yield "program cache", describe_folder(compilation.cache_folder())
    except SeqlabError as error:
        yield "program cache", f"not writable: {error}"


def describe_devices() -> str:
    """Returns the devices that JAX computes on, or the reason why it has none."""
    try:
        import jax

        devices = jax.devices()
    except Exception as error:  # a driver or a package may raise anything
        return f"none: {str(error).splitlines()[0]}"
    kinds = {device.device_kind for device in devices}
    return f"{len(devices)} {devices[0].platform} ({', '.join(sorted(kinds))})"


def describe_folder(folder: Path) -> str:
    """Returns a folder's path, whether it can be written to, and the free space on its disk."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    state = "" if folder.exists() else ", does not exist yet"
    state += "" if os.access(existing, os.W_OK) else ", not writable"
    return f"{folder}{state}, {shutil.disk_usage(existing).free / 2**30:.1f} GiB free"


def advice_for(facts: dict[str, str], data_dir: Path) -> Iterator[str]:
    """Yields advice on each fact that keeps seqlab from working well."""
    missing = [package for package in PACKAGES if facts[package] == "missing"]
    if missing:
        yield f"install the missing packages: pip install {' '.join(missing)}"
    if " cpu " in facts["devices"]:
        for program, command in ACCELERATORS.items():
            if shutil.which(program):
                yield f"this machine has an accelerator that JAX does not use: {command}"
    if "not writable" in facts["data folder"]:
        yield f"choose a folder for prepared data instead of {data_dir}: set SEQLAB_DATA or give --data-dir"
    if "not writable" in facts["program cache"]:
        yield "choose a folder for compiled programs: set XDG_CACHE_HOME"
