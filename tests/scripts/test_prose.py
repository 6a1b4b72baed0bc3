"""The check of prose finds a planted phrase and a planted misspelling, and accepts plain sentences."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "prose.py"))

PLANTED = {
    "A sample hinges on the seed.": "hinges",
    "The same command goes on with the run.": "goes on with",
    "exists and is no run": "is no",
    "at most so many tokens": "so many",
    "A list that stands beside\n    the text.": "stands beside",
    "# a process is told of the\n# end": "is told",
}


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_phrase_is_found(text, tmp_path):
    assert PLANTED[text] in [phrase for _, phrase, _ in SCRIPT["found_in"](text)]
    path = tmp_path / "page.md"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "prose.py"), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{path}:1: {PLANTED[text]!r}: write " in done.stdout


def test_a_misspelling_is_found(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("The recieved batch.\n")
    command = [sys.executable, str(ROOT / "scripts" / "prose.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "recieved ==> received" in done.stdout


@pytest.mark.parametrize(
    "text", ["There is no checkpoint.", "It is no longer needed.", "It resumes.", "at least one"]
)
def test_plain_sentences_pass(text):
    assert list(SCRIPT["found_in"](text)) == []


def test_help_texts_are_checked():
    texts = dict(SCRIPT["help_texts"]())
    assert "--beam" in texts["seqlab decode --help"]
    assert "--model.dim" in texts["seqlab train --help"]
    assert all("usage: " in text for text in texts.values())
