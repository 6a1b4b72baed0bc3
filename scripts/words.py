"""Writes all text that users see into one file: help texts, errors raised by the tests, headings of the report.

python scripts/words.py ERRORS OUT     # `make words` runs the tests with --words ERRORS first
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from prose import help_texts

ROOT = Path(__file__).resolve().parents[1]


def error_messages(path: Path) -> list[str]:
    """Returns the different messages, without folders; of messages that differ only in numbers, the first."""
    messages = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        message = re.sub(r"/\S*/", "", json.loads(line))
        messages.setdefault(re.sub(r"\d+", "0", message), message)
    return sorted(messages.values())


def report_headings() -> Iterator[str]:
    """Yields the headings, captions and notes of the report, which its template writes by `section` and `make`."""
    template = (ROOT / "seqlab" / "evaluation" / "report.html").read_text(encoding="utf-8")
    calls = r"""section\(\s*["`]([^"`]+)|make\("(?:p|th|span|caption)",\s*\{[^{}]*\},\s*["`]([^"`]+)"""
    for heading, note in re.findall(calls, template):
        yield heading or note


def main(errors: str, out: str) -> None:
    parts = [f"{name}\n{text}" for name, text in help_texts()]
    parts.append("\n".join(["errors raised by the tests", *error_messages(Path(errors))]))
    parts.append("\n".join(["headings of the report", *report_headings()]))
    Path(out).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
