"""The pages: links lead to files and headings, commands and options exist, code in README.md is that of its files."""

import re
import shlex
from pathlib import Path

import help_texts
import pytest

from seqlab.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
EXAMPLES = {name: argument for name, argument in help_texts.EXAMPLES.items() if name != "prepare"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted(path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "reference"} & set(path.parts))
GENERATED = {ROOT / "docs" / "reference" / f"{name}.md" for name in ("commands", "config", "parts", "api")}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_outside_code(path):
    return re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(path):
    """The anchors of a page's headings, as GitHub and MyST derive them."""
    content = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", content, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links_lead_somewhere(page):
    for link in LINK.findall(text_outside_code(page)):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() or target in GENERATED, f"{page.name}: no file {link}"
        assert not anchor or target in GENERATED or anchor in anchors(target), f"{page.name}: no heading {link}"


def test_every_page_is_in_the_site():
    listed = set()
    for page in PAGES[2:]:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    assert listed == {*PAGES[2:], *GENERATED} - {ROOT / "docs" / "index.md"}


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_code_in_the_readme_is_that_of_its_files():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    config, model = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    lines = (ROOT / "configs" / "phrases_lm.py").read_text(encoding="utf-8").splitlines()
    assert set(config.splitlines()) <= set(lines)
    assert model in (ROOT / "docs" / "parts" / "model.md").read_text(encoding="utf-8")


def commands_in(path):
    """Commands of seqlab in blocks and in code spans of a page, as lists of words, without the shell around them."""
    content = path.read_text(encoding="utf-8")
    fenced = re.findall(r"```(?:text|bash|sh|console)?\n(.*?)```", content, re.DOTALL)
    blocks = [line.removeprefix("$ ") for block in fenced for line in block.splitlines() if line.startswith("$ ")]
    blocks += re.findall(r"^    (.*)$", content, re.MULTILINE)
    prose = re.sub(r"```.*?```", "", content, flags=re.DOTALL)
    blocks += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line in blocks:
        for part in re.split(r"\||#|&&|\(|;", line.replace("\\|", "/")):
            if part.strip().startswith("seqlab ") and "..." not in part.split()[1:2]:
                yield shlex.split(part.replace("'", "").replace("[", " ").replace("]", " ").replace("...", " "))


OPTIONS = {}


def options_of(command, argument=None):
    """The names of the options of a command, and of its fields if it reads a config."""
    if (command, argument) not in OPTIONS:
        text = help_texts.help_text(command, *filter(None, [argument]))
        OPTIONS[command, argument] = set(re.findall(r"--[a-z][\w.-]*", text)) | {"--help"}
    return OPTIONS[command, argument]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for _, command, *arguments in commands_in(page):
        if command == "COMMAND":
            continue
        assert command in COMMANDS, f"{page.name}: seqlab {command}"
        if command == "launch" and "--" in arguments:
            arguments = arguments[: arguments.index("--")]
        first = arguments[0] if arguments else ""
        if command in EXAMPLES:
            first = first if (ROOT / first).is_file() and first else EXAMPLES[command]
        elif command == "prepare":
            name = first.strip("`").partition("/")[0]
            first = first if (ROOT / "seqlab" / "datasets" / f"{name}.py").exists() else "multi30k/en-de"
        else:
            first = None
        known = options_of(command, first)
        for argument in arguments:
            option = argument.partition("=")[0]
            if re.match(r"--[a-z]", option):
                assert option in known, f"{page.name}: seqlab {command} has no {option}"
