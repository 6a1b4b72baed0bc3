"""The cache of compiled programs: later processes read it, and its content never changes results."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from seqlab.system import compilation
from tests.command import call

# Compiles one function, and prints its result and the number of programs that were read from the cache.
PROGRAM = """
import json, sys
import jax, numpy as np
from seqlab.system import compilation
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
    """Runs a new process with its cache in `home`. Fails if it prints warnings."""
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
    kept.write_bytes(kept.read_bytes()[:-20])  # truncated by SIGKILL: removed and written again
    assert run(tmp_path) == first
    assert run(tmp_path) == {**first, "hits": 1}
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    stamp = kept.with_name(compilation.STAMP)
    os.utime(stamp, (2e9, 2e9))  # a bit flipped on disk after the check: JAX ignores the file
    assert run(tmp_path) == first
    os.utime(stamp, (0, 0))
    assert run(tmp_path) == first
    moved = tmp_path / "elsewhere"
    moved.mkdir(mode=0o700)
    (tmp_path / "seqlab").rename(moved / "seqlab")
    assert run(moved) == {**first, "hits": 1}


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


def name(letter: str) -> str:
    """Returns a file name that JAX could choose for a program."""
    return f"jit_f-{letter * 64}-cache"


def test_damaged_files_are_removed_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "decompressor", lambda: zlib.decompress)
    whole, cut = tmp_path / name("a"), tmp_path / name("b")
    whole.write_bytes(zlib.compress(b"a program"))
    cut.write_bytes(zlib.compress(b"a program")[:-3])
    (tmp_path / "my-cache").write_bytes(b"")
    (tmp_path / name("c")).mkdir()
    os.mkfifo(tmp_path / name("d"))
    (tmp_path / name("e")).symlink_to("my-cache")
    compilation.remove_damaged(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name("a"), name("c"), name("d"), name("e"), "my-cache", compilation.STAMP}
    whole.write_bytes(b"")
    os.utime(tmp_path / compilation.STAMP, (2e9, 2e9))  # the file is older than the check
    compilation.remove_damaged(tmp_path)
    assert whole.exists()
    os.utime(tmp_path / compilation.STAMP, (0, 0))
    compilation.remove_damaged(tmp_path)
    assert not whole.exists()


def test_a_file_that_cannot_be_removed_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / name("a")).write_bytes(b"")

    def refuse(path, **_):
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    compilation.remove_damaged(tmp_path)
    compilation.remove_oldest(tmp_path, -1)


def test_the_least_recently_used_go_first(tmp_path, monkeypatch):
    uses = [(tmp_path / name(letter), use) for letter, use in (("a", 3.0), ("b", 2.0), ("c", 1.0), ("d", 4.0))]
    for path, _ in uses:
        path.write_bytes(b"x" * 100)
    kept = sorted(compilation.Entry(use, use, 100, path) for path, use in uses)
    monkeypatch.setattr(compilation, "entries", lambda folder: kept)
    compilation.remove_oldest(tmp_path, 400)
    assert len(list(tmp_path.iterdir())) == 4
    compilation.remove_oldest(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {name("a"), name("d")}


def test_a_link_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, elsewhere = compilation.machine_folder(), tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / name("a")).write_bytes(b"damaged")
    folder.parent.mkdir(mode=0o700, parents=True)
    folder.symlink_to(elsewhere)
    assert not compilation.make_private(folder)
    assert compilation.usage() == (0, 0)
    compilation.clear()
    assert not folder.is_symlink()
    assert (elsewhere / name("a")).exists()


@pytest.mark.parametrize(("mode", "used"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_nobody_else_may_rename_the_folder(tmp_path, monkeypatch, mode, used):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    assert compilation.make_private(compilation.machine_folder()) == used


def test_no_home_and_a_relative_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert compilation.cache_folder() == tmp_path / ".cache" / "seqlab"

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    compilation.keep_compilations()
    assert call(tmp_path, "cache") == 2
    assert "set XDG_CACHE_HOME to a folder" in capsys.readouterr().err


def test_the_command_reports_and_clears(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation.machine_folder()
    assert call(tmp_path, "cache") == 0
    output = capsys.readouterr().out
    assert "programs 0, size 0.0 MiB, limit 1,024 MiB" in output
    assert "not used: $JAX_COMPILATION_CACHE_DIR is set" in output
    folder.mkdir(parents=True)
    (folder / name("a")).write_bytes(b"x" * (1 << 20))
    (tmp_path / "seqlab" / "else").write_text("not ours")
    assert call(tmp_path, "cache", "--clear") == 0
    output = capsys.readouterr().out
    assert ": removed\nprograms 1, size 1.0 MiB" in output
    assert [path.name for path in (tmp_path / "seqlab").iterdir()] == ["else"]
