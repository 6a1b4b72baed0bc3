"""Tests of tests/conftest.py, by running pytest on small test files."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLANTED = """
import pytest
from tests.mutants import Mutant

COUNTS = {"a": 1, "b": 8, "c": 9}
MUTANTS = [Mutant(f"{law} {i}", "", "", "", law) for law, count in COUNTS.items() for i in range(count)]

@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.replace(" ", "-"))
def test_planted(mutant):
    pass

@pytest.mark.sample(2)
@pytest.mark.parametrize("n", range(5))
def test_sampled(n):
    pass
"""


def run(folder: Path, content: str, *options: str) -> tuple[int, str]:
    """Returns the exit code and the output of a pytest run with two workers."""
    (folder / "test_it.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", "2", "-v", *options, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_no_test_ends_its_worker(tmp_path):
    """Tests logs and failures with half of a surrogate pair, which a worker cannot send unescaped."""
    content = """
import logging

def test_logs():
    logging.getLogger("x").warning("\\ud800")

def test_fails():
    assert "\\ud800" == "x"

def test_passes():
    pass
"""
    code, output = run(tmp_path, content)
    assert code == 1
    assert "1 failed, 2 passed" in output


def test_compilations_are_counted_and_bounded(tmp_path):
    content = """
import jax, numpy as np, pytest

@pytest.mark.parametrize("n", [3, 5])
def test_compiles(n):
    jax.jit(lambda x: x * n)(np.zeros(n, np.float32))
"""
    code, output = run(tmp_path, content, "--max-compilations", "2")
    assert code == 0
    assert "2 programs were needed" in output
    assert "test_it.py" in output.partition("programs were needed")[2]
    code, output = run(tmp_path, content, "--max-compilations", "1")
    assert code == 1
    assert "FAILED: more than the 1 of --max-compilations" in output


@pytest.mark.parametrize(("option", "tried"), [("share", 4 + 3), ("all", 18 + 5)])
def test_a_share_of_the_planted_bugs(tmp_path, option, tried):
    """One in eight bugs of each law, but at least one; one in two sampled cases; the same in all workers."""
    code, output = run(tmp_path, PLANTED, "--mutants", option)
    assert code == 0
    assert f"{tried} passed" in output
    assert all(f"test_planted[{law}-" in output for law in "abc")
