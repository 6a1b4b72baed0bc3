"""Checks the prose of the project: spelling, by codespell, and phrases that are not idiomatic English.

    python scripts/prose.py            # code, docs, configs and the help texts of all commands
    python scripts/prose.py FILE ...   # these files alone

Prints a line for each phrase found, with its replacement, and exits with 1 if there are any.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from help_texts import command_help, help_text

from seqlab.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".md", ".py", ".sh", ".toml", ".yaml", ".html", ".sbatch", ".txt")
PHRASES = {  # patterns, and what to write instead
    r"\bhing(e|es|ed|ing)\b": "depend",
    r"\b(go|goes|going|gone|went) on with\b": "resume, continue",
    r"\b(is|are|was|were|be) told\b": "receive, be reported",
    r"\btold of\b": "reported",
    r"(?<!there\s)\b(is|are) no (?!longer|more|less|later)": "is not a",
    r"\bstands? (beside|next to|where|for itself)\b": "appears next to, is",
    r"\bso many\b": "N, that number of",
    r"\b(one|two|three) at least\b": "at least one",
    r"\bat most and at least\b": "between",
    r"\bmend(s|ed|ing)?\b": "repair",
    r"\bnone of the (models|tasks|datasets|metrics)\b": "not one of the",
    r"\bthe more so\b": "even more",
    r"\bas good as it\b": "at least as good",
    r"\bapart by\b": "separated by",
    r"\bworked on in parts\b": "split",
    r"\bis meant to\b": "is intended to",
    r"\bgoes? on where\b": "resumes",
    r"\bmade again\b": "rebuilt",
    r"\bby itself alone\b": "alone",
    r"\bwhat is (broken|forbidden|asked)\b": "malformed input, forbidden tokens, the request",
}
ALLOWED = {"scripts/prose.py", "tests/scripts/test_prose.py"}  # they quote the phrases


def found_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields the line, the text and the replacement of each phrase found. A phrase may extend over two lines."""
    for pattern, replacement in PHRASES.items():
        spread = pattern.replace(" ", r"\s+(?:#\s*)?")
        for match in re.finditer(spread, text, re.IGNORECASE):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match.group().split()), replacement


def tracked_files() -> list[Path]:
    """Returns the files of prose and code that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name.endswith(SUFFIXES) and name not in ALLOWED]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def help_texts() -> Iterator[tuple[str, str]]:
    """Yields the help text of the program and of each command, by name."""
    yield "seqlab --help", help_text()
    for name in COMMANDS:
        yield f"seqlab {name} --help", command_help(name)


def check_phrases(sources: Iterable[tuple[str, str]]) -> int:
    """Prints the phrases in texts, given their names. Returns the number of phrases."""
    count = 0
    for name, text in sources:
        for line, phrase, replacement in found_in(text):
            print(f"{name}:{line}: {phrase!r}: write {replacement}")
            count += 1
    return count


def main(arguments: list[str]) -> int:
    files = [Path(name) for name in arguments] or tracked_files()
    count = check_phrases((str(path), path.read_text(encoding="utf-8")) for path in files)
    if not arguments:
        count += check_phrases(help_texts())
    command = [sys.executable, "-m", "codespell_lib", "--toml", str(ROOT / "pyproject.toml"), *map(str, files)]
    spelling = subprocess.run(command, check=False).returncode
    return int(bool(count or spelling))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
