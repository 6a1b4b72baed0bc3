"""Real processes, started as by each launcher: they find each other, and train like a single process."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from seqlab.runs import checkpoint, manifest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
CONFIG = """
import dataclasses
from seqlab.laws.training import tiny_experiment
from seqlab.config import Optimizer, Validation
tiny = tiny_experiment()
experiment = dataclasses.replace(
    tiny,
    model=tiny.model.clone(dropout=0.0),
    steps=10,
    validation=Validation(every=5, examples=3, beam=0),
    optimizer=Optimizer("sgd"),
)
"""
LONGER = CONFIG.replace("steps=10", "steps=60").replace("every=5", "every=10").replace("dropout=0.0", "dropout=0.2")
SEQLAB = [sys.executable, "-m", "seqlab.cli"]
TOGETHER = """
import json, sys
from seqlab.distributed.launch import launch
sys.exit(launch(json.loads(sys.argv[1])))
"""
# Like srun: starts two tasks with the variables of Slurm.
SRUN = f"""#!{sys.executable}
import sys
from seqlab.distributed.launch import launch
own = [f"SLURM_STEP_NODELIST=localhost", "SLURM_NTASKS=2"]
task = sys.argv[sys.argv.index("bash"):]
sys.exit(launch([["env", *own, f"SLURM_PROCID={{i}}", f"SLURM_LOCALID={{i}}", *task] for i in range(2)]))
"""


def environment(devices: int, **others: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "KUBERNETES_"))}
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return {**own, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **others}


def train(config: str, out: str) -> list[str]:
    return ["train", config, "--data-dir", "data", "--out", out]


def free(port: int) -> int:
    """Returns this port, or a free port if it is 0. Raises `OSError` if it is in use."""
    with socket.socket() as one:
        one.bind(("localhost", port))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with configs, data, and a run of a single process with eight devices."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.py").write_text(CONFIG)
    (home / "longer.py").write_text(LONGER)
    subprocess.run([*SEQLAB, *train("tiny.py", "alone")], cwd=home, env=environment(8), check=True, timeout=300)
    return home


def launched(home: Path, *command: str) -> None:
    """Runs a command in two processes with four devices each."""
    whole = [*SEQLAB, "launch", "--processes", "2", "--", *command]
    subprocess.run(whole, cwd=home, env=environment(4), check=True, timeout=300)


def by_launch(home: Path) -> str:
    launched(home, *train("tiny.py", "launched"))
    return "launched"


def by_pmap(home: Path) -> str:
    launched(home, *train("tiny.py", "pmap"), "--parallel.name", "pmap")
    return "pmap"


def sharing_parameters(home: Path) -> str:
    """Shards parameters across processes: a mesh axis is larger than the number of devices of a process."""
    launched(home, *train("tiny.py", "sharing"), "--parallel.fsdp", "4", "--parallel.tensor", "2")
    return "sharing"


def in_parts(home: Path) -> str:
    launched(home, *train("tiny.py", "parts"), "--accumulate", "2")
    return "parts"


def by_slurm(home: Path) -> str:
    """Runs the Slurm script. JAX derives the port from the job number."""
    programs = home / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    (programs / "seqlab").write_text(f'#!/bin/sh\nexec {" ".join(SEQLAB)} "$@"\n')
    (programs / "srun").write_text(SRUN)
    for name in ("seqlab", "srun"):
        (programs / name).chmod(0o755)

    def reachable(job: int) -> bool:
        try:
            return bool(free(job % 2**12 + 65535 - 2**12 + 1))
        except OSError:
            return False

    job = next(job for job in itertools.count(os.getpid()) if reachable(job))
    given = ["tiny.py", "slurm", "--data-dir", "data"]
    command = ["bash", str(ROOT / "scripts" / "train_slurm.sbatch"), *given]
    flags = environment(4)["XLA_FLAGS"]
    subprocess.run(
        command, cwd=home, env=environment(4, SLURM_JOB_ID=str(job), XLA_FLAGS=flags), check=True, timeout=300
    )
    return "slurm"


def by_jobset(home: Path) -> str:
    """Runs the command of the JobSet, with changes only to the host name and the data folder."""
    whole = yaml.safe_load((ROOT / "scripts" / "train_jobset.yaml").read_text())
    [container] = whole["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    given = [one for one in container["command"] if one.startswith(("--coordinator", "--process"))]
    given[0] = f"--coordinator=localhost:{free(0)}"
    commands = [
        [*SEQLAB, *train("tiny.py", "jobset"), *(one.replace("$(JOB_COMPLETION_INDEX)", str(i)) for one in given)]
        for i in range(2)
    ]
    command = [sys.executable, "-c", TOGETHER, json.dumps(commands)]
    subprocess.run(command, cwd=home, env=environment(4), check=True, timeout=300)
    return "jobset"


@pytest.mark.parametrize("begin", [by_launch, by_pmap, sharing_parameters, in_parts, by_slurm, by_jobset])
def test_trains_as_one_process_does(home, begin):
    """Parameters are equal after five and ten steps of SGD."""
    run = home / begin(home)
    for step in (5, 10):
        ours, alone = (checkpoint.restore(one, step)["params"] for one in (run, home / "alone"))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(alone), strict=True):
            assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def test_decodes_as_one_process_does(home):
    """Decodes an odd number of lines, one of them blank, with two texts for each; and evaluates a split."""
    (home / "lines").write_text("3 hours\nMonday\n\nFriday, Tuesday\n5 days\n")
    decode = ["decode", "alone", "--input", "lines", "--beam", "2", "--nbest", "2", "--output"]
    evaluate = ["evaluate", "alone", "--data-dir", "data", "--beam", "2", "--output"]
    for command, name in ((decode, "decoded"), (evaluate, "evaluated")):
        launched(home, *command, f"{name}-by-two")
        subprocess.run([*SEQLAB, *command, f"{name}-by-one"], cwd=home, env=environment(1), check=True, timeout=300)
        assert (home / f"{name}-by-two").read_text() == (home / f"{name}-by-one").read_text()
    assert len((home / "decoded-by-two").read_text().splitlines()) == 10


def children(process: subprocess.Popen) -> list[int]:
    """Returns the processes that a launcher has started, in order."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(int(pid) for pid in path.read_text().split())


def begun(home: Path, out: str) -> subprocess.Popen[str]:
    """Starts a launcher, and waits until its run has its first checkpoint."""
    command = [*SEQLAB, "launch", "--processes", "2", "--grace", "10", "--", *train("longer.py", out)]
    process = subprocess.Popen(command, cwd=home, env=environment(2), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not manifest.checkpoint_steps(home / out):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.fixture(scope="module")
def whole(home) -> str:
    """The fingerprint of an uninterrupted run by two processes."""
    command = [*SEQLAB, "launch", "--processes", "2", "--", *train("longer.py", "whole")]
    subprocess.run(command, cwd=home, env=environment(2), check=True, timeout=300)
    return checkpoint.fingerprint(home / "whole", 60)


def go_on(home: Path, out: str) -> str:
    command = [*SEQLAB, "launch", "--processes", "2", "--", *train("longer.py", out)]
    assert 0 < manifest.checkpoint_steps(home / out)[-1] < 60
    subprocess.run(command, cwd=home, env=environment(2), check=True, timeout=300)
    return checkpoint.fingerprint(home / out, 60)


@pytest.mark.parametrize("number", [0, 1])
def test_one_is_killed(home, whole, number):
    """The killed process is reported with its number, and the same command resumes the run bit for bit."""
    process = begun(home, f"killed-{number}")
    os.kill(children(process)[number], signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 137
    assert f"process {number} was killed by signal 9" in told
    assert "repeat the command to resume from the last checkpoint" in told
    assert go_on(home, f"killed-{number}") == whole


def test_asked_to_stop(home, whole):
    process = begun(home, "stopped")
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 75, told
    assert go_on(home, "stopped") == whole
