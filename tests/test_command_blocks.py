"""The command blocks of the pages: what they print is what the commands print."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SHORT = ("guides/evaluation.md", "guides/parts.md")
LONG = ("get_started.md", "guides/parallel_text.md", "guides/resume.md", "guides/ensembles.md")
LONG += ("guides/compress.md", "guides/documents.md", "guides/diagnose.md", "concepts/laws.md")
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME = re.compile(r"\d+(\.\d+)? (s|min|h)\b( ago)?")
NUMBER = re.compile(r"\d+\.\d+(?:e[+-]\d+)?|\d+(?=%)")
TOLERANCE = 0.2  # of decimal numbers and percentages, which depend on the processor
NOISE = 1e-5  # below, numbers are rounding errors, which differ by any factor up to 10
TIMEOUT = 900  # seconds


def commands_in(page: Path) -> list[tuple[str, list[str]]]:
    """Returns the commands of the console blocks of a page, each with the lines that it prints."""
    commands: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert block.startswith("$ "), f"{page}: a block of output without a command"
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
    return commands


def run(command: str, folder: Path) -> tuple[list[str], int]:
    """Runs a command of a page as a terminal would. Returns the lines that it prints, and its exit code."""
    own = ("XLA_", "JAX_", "SEQLAB_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "JAX_PLATFORMS": "cpu"}
    shell = ["bash", "-o", "pipefail", "-c", f"{{ {command}\n}} 2>&1 < /dev/null"]
    done = subprocess.run(shell, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT)
    return done.stdout.rstrip("\n").split("\n") if done.stdout else [], done.returncode


def alike(expected: str, printed: str) -> bool:
    """Whether two lines have the same words. Times may differ, and decimal numbers a little."""
    words, printed_words = (TIME.sub("TIME", line).split() for line in (expected, printed))
    return len(words) == len(printed_words) and all(map(same_word, words, printed_words))


def same_word(expected: str, printed: str) -> bool:
    if NUMBER.sub("#", expected) != NUMBER.sub("#", printed):
        return False
    numbers, printed_numbers = (map(float, NUMBER.findall(word)) for word in (expected, printed))
    return all(map(same_number, numbers, printed_numbers))


def same_number(expected: float, printed: float) -> bool:
    if 0 < expected < NOISE:
        return expected / 10 < printed < expected * 10
    return math.isclose(expected, printed, rel_tol=TOLERANCE)


def first_difference(expected: list[str], printed: list[str]) -> str | None:
    """Returns the first expected line that is not printed in its place. A line "..." stands for any lines."""
    place, anywhere = 0, False
    for line in expected:
        if line == "...":
            anywhere = True
            continue
        while anywhere and place < len(printed) and not alike(line, printed[place]):
            place += 1
        if place == len(printed) or not alike(line, printed[place]):
            return line
        place, anywhere = place + 1, False
    return None if anywhere or place == len(printed) else f"(nothing after line {place})"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a clone that the pages use."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "data/samples", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def tried() -> set[str]:
    """The pages that were tried in the folder."""
    return set()


def check(page: str, folder: Path) -> None:
    for command, expected in commands_in(DOCS / page):
        printed, code = run(command, folder)
        fails = command.startswith("seqlab bisect") or any(line.startswith("seqlab: ") for line in expected)
        assert (code != 0) == fails, f"{page}: $ {command}\nexit code {code}\n" + "\n".join(printed)
        line = first_difference(expected, printed)
        assert line is None, f"{page}: $ {command}\nexpected: {line}\nprinted:\n" + "\n".join(printed)


@pytest.mark.parametrize("page", SHORT)
def test_commands_print_what_the_page_shows(page, folder):
    check(page, folder)


@pytest.mark.long
@pytest.mark.parametrize("page", LONG)
def test_commands_that_train_print_what_the_page_shows(page, folder, tried):
    """The pages share one folder. Later ones use the runs of `get_started.md` and `parallel_text.md`, so these are
    tried first, once.
    """
    for name in (*LONG[:2], page):
        if name not in tried:
            tried.add(name)
            check(name, folder)


def test_every_page_with_console_blocks_is_tested():
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    assert {page for page in pages if commands_in(DOCS / page)} == {*SHORT, *LONG}


def test_a_changed_output_is_noticed():
    printed = ["a run of 3 steps", "took 2.1 s", "loss 1.04, BLEU 35.1", "the end"]
    assert first_difference(["a run of 3 steps", "...", "loss 1.01, BLEU 35.4", "the end"], printed) is None
    assert first_difference(["a run of 3 steps", "took 99 s", "...", "the end"], printed) is None
    assert first_difference(["a run of 4 steps", "...", "the end"], printed) == "a run of 4 steps"
    assert first_difference(["a run of 3 steps", "...", "loss 2.04, BLEU 35.1", "..."], printed) is not None
    assert first_difference(["a run of 3 steps", "took 1 s", "the end"], printed) == "the end"
    assert first_difference(["a run of 3 steps"], printed) is not None
    assert first_difference(["...", "the end", "more"], printed) == "more"
    assert not alike("at 1.5e-05", "at 0.04")
    assert not alike("loss 0.041", "loss 0.002")
    assert not alike("87% of the units", "22% of the units")
    assert alike("difference 2.6e-07", "difference 1.1e-06")
