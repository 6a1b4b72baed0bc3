"""What is compiled is kept for the next process; whatever is in the folder, results are the same."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from seqlab import compilation
from tests.command import call

# Compiles one function and prints what became of it: its result, and how often a kept program was read.
PROGRAM = """
import json, sys
import jax, numpy as np
from seqlab import compilation
counts = []
compilation.MIN_SECONDS = 0.0
compilation.keep_compilations()
jax.monitoring.register_event_listener(lambda event, **_: counts.append(event))
x = np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7)
y = np.asarray(jax.jit(lambda x: (x @ x.T).sum(axis=0) / 3)(x))
hits = sum(event.endswith("/cache_hits") for event in counts)
print(json.dumps({"bits": y.tobytes().hex(), "hits": hits}))
"""


def run(home: Path, **settings: str) -> dict:
    """A new process with its cache in `home`. Fails if it warns, or prints anything else."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    env |= {"XDG_CACHE_HOME": str(home), "JAX_PLATFORMS": "cpu", **settings}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=env, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


def programs(home: Path) -> list[Path]:
    return sorted(home.glob("seqlab/compiled-*/*-cache"))


def test_a_second_process_reads_what_the_first_compiled(tmp_path):
    first = run(tmp_path)
    assert first["hits"] == 0
    (kept,) = programs(tmp_path)
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert run(tmp_path) == {**first, "hits": 1}
    kept.write_bytes(kept.read_bytes()[:-20])  # cut off by SIGKILL: removed, and made again
    assert run(tmp_path) == first
    assert run(tmp_path) == {**first, "hits": 1}
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    os.utime(kept, (0, 0))  # a bit that flips on the disk, long after the check: passed over
    assert run(tmp_path) == first


def test_a_folder_that_was_given_is_left_alone(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    (given / "half-cache").write_bytes(b"x")
    run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(given))
    assert not programs(tmp_path)
    assert (given / "half-cache").exists()


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation.machine_folder()
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert not compilation.make_private(folder)
    run(tmp_path)
    assert not programs(tmp_path)
    folder.chmod(0o700)
    assert compilation.make_private(folder)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not compilation.make_private(folder)


def test_nothing_is_kept_without_a_folder(tmp_path):
    (tmp_path / "seqlab").write_text("a file")
    assert [run(tmp_path)["hits"] for _ in range(2)] == [0, 0]


def test_damaged_files_are_removed_and_whole_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "decompressor", lambda: zlib.decompress)
    whole, cut = tmp_path / "a-cache", tmp_path / "b-cache"
    whole.write_bytes(zlib.compress(b"a program"))
    cut.write_bytes(zlib.compress(b"a program")[:-3])
    (tmp_path / "text").write_bytes(b"")
    compilation.remove_damaged(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a-cache", "text", compilation.CHECKED}
    whole.write_bytes(b"")
    os.utime(whole, (0, 0))  # older than the check
    compilation.remove_damaged(tmp_path)
    assert whole.exists()
    os.utime(whole)
    compilation.remove_damaged(tmp_path)
    assert not whole.exists()


def test_the_least_recently_used_go_first(tmp_path):
    for age, name in enumerate("abcd"):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    os.utime(tmp_path / "d-cache", (2000, 997))  # read again
    compilation.remove_oldest(tmp_path, 400)
    assert len(list(tmp_path.iterdir())) == 4
    compilation.remove_oldest(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"a-cache", "d-cache"}


def test_the_command_reports_and_clears(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation.machine_folder()
    assert call(tmp_path, "cache") == 0
    output = capsys.readouterr().out
    assert "programs 0, size 0.0 MiB, limit 1,024 MiB" in output
    assert "not used: $JAX_COMPILATION_CACHE_DIR is set" in output
    folder.mkdir(parents=True)
    (folder / "a-cache").write_bytes(b"x" * (1 << 20))
    (tmp_path / "seqlab" / "else").write_text("not ours")
    assert call(tmp_path, "cache", "--clear") == 0
    output = capsys.readouterr().out
    assert "(cleared)\nprograms 1, size 1.0 MiB" in output
    assert [path.name for path in (tmp_path / "seqlab").iterdir()] == ["else"]
