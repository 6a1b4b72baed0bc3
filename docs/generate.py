"""Writes the reference pages of the documentation: commands, fields of a config, parts, and the Python API.

    python docs/generate.py FOLDER

`conf.py` calls `write_reference` at each build, so the pages agree with the code that is imported.
"""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from flax import linen as nn

from seqlab import config
from seqlab.cli.main import COMMANDS, run_command
from seqlab.metrics.registry import load_metrics
from seqlab.system.parts import names

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {name: "configs/quickstart.py" for name in ("train", "cost", "diagnose")} | {"prepare": "multi30k/en-de"}
CONFIG_CLASSES = ("Experiment", "Text", "Batching", "Optimizer", "Schedule", "Search", "Validation", "Checkpoints")
CONFIG_CLASSES += ("Parallel",)
MODULE_KINDS = ("models", "encoders", "readers")
DATACLASS_KINDS = {"tasks": "TASK", "datasets": "DATASET", "codecs": "CODEC"}
CONFIG_OPTIONS = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(config.Experiment)}
API = ("seqlab", "seqlab.runs.loading", "seqlab.catalogue", "seqlab.types", "seqlab.data.task", "seqlab.codecs.codec")
API += ("seqlab.parametrizations.parametrization", "seqlab.rewards.reward", "seqlab.metrics.metric")
API += ("seqlab.metrics.registry", "seqlab.evaluation.evaluate", "seqlab.evaluation.significance")
API += ("seqlab.laws.certificate", "seqlab.training.train")


def write_reference(folder: Path) -> None:
    """Writes commands.md, config.md, parts.md and api.md. Files whose content is unchanged keep their time."""
    folder.mkdir(exist_ok=True)
    pages = {"commands": commands_page, "config": config_page, "parts": parts_page, "api": api_page}
    for name, page in pages.items():
        path, content = folder / f"{name}.md", page()
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def help_of(command: str, *arguments: str) -> str:
    """Returns what `seqlab COMMAND ARGUMENTS --help` prints on a terminal of 100 columns."""
    output, folder = io.TextIOWrapper(io.BytesIO(), "utf-8"), os.getcwd()
    os.chdir(ROOT)
    try:
        with (
            mock.patch.dict(os.environ, {"COLUMNS": "100"}),
            contextlib.redirect_stdout(output),
            contextlib.suppress(SystemExit),
        ):
            run_command([command, *arguments, "--help"])
    finally:
        os.chdir(folder)
    output.seek(0)
    return output.read()


def options_in(text: str) -> list[tuple[str, str]]:
    """Returns the arguments in a help text, without the groups of a config's fields: pairs of an option, its help."""
    entries: list[tuple[str, str]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("╭"):
            inside = line.strip("╭─╮ ") in ("positional arguments", "options")
        elif inside and line.startswith("│"):
            content = line.strip("│")[1:].rstrip()
            option, _, description = content.partition("  ")
            if content.startswith(" "):
                option, description = entries.pop()
                description += " " + content.strip()
            entries.append((option, description.strip()))
    return [entry for entry in entries if not entry[0].startswith("-h,")]


def commands_page() -> str:
    lines = ["# Commands", "", "`seqlab COMMAND --help` prints these texts.", ""]
    lines += ["| command | what it does |", "|---|---|"]
    helps = {name: help_of(name, *filter(None, [EXAMPLES.get(name)])) for name in COMMANDS}
    for name, command in COMMANDS.items():
        lines.append(f"| [`seqlab {name}`](#seqlab-{name}) | {cell(first_line(command).partition(': seqlab ')[0])} |")
    for name, text in helps.items():
        usage, _, rest = text.partition("\n")
        description = rest.partition("╭")[0].strip()
        lines += ["", f"(seqlab-{name})=", "", f"## seqlab {name}", "", "```text", usage, "```", ""]
        entries, example = options_in(text), EXAMPLES.get(name)
        lines += [markdown(description), ""]
        if name == "prepare":
            lines += [f"Options for `{example}`:", ""]
        elif example is not None:
            lines += [f"Options for `{example}`. The [fields of a config](config.md) are options as well.", ""]
            entries = [entry for entry in entries if entry[0].split(",")[0].split(" ")[0] not in CONFIG_OPTIONS]
        if entries:
            lines += ["| option | help |", "|---|---|"]
            lines += [f"| {code(option)} | {cell(text.replace('(default: None)', ''))} |" for option, text in entries]
    return "\n".join(lines) + "\n"


def config_page() -> str:
    lines = [
        "# Fields of a config",
        "",
        "A config is a Python file that defines `experiment = Experiment(...)`. Each",
    ]
    lines += ["field is also an option of `seqlab train`: `--schedule.peak 1e-3`.", ""]
    for name in CONFIG_CLASSES:
        cls = getattr(config, name)
        prefix = "" if cls is config.Experiment else f"{name.lower()}."
        lines += [f"## {name}", "", markdown(doc_of(cls)), "", *field_table(cls, prefix), ""]
    return "\n".join(lines)


def parts_page() -> str:
    lines = ["# Parts", "", "The parts that `seqlab list KIND` prints, with their fields."]
    for kind in MODULE_KINDS:
        lines += ["", f"## {kind.capitalize()}"]
        for name in names(kind):
            module = importlib.import_module(f"seqlab.{kind}.{name}")
            lines += part_section(name, module, type(module.TINY))
    for kind, attribute in DATACLASS_KINDS.items():
        lines += ["", f"## {kind.capitalize()}"]
        for name in names(kind):
            module = importlib.import_module(f"seqlab.{kind}.{name}")
            if hasattr(module, attribute):
                lines += part_section(name, module, getattr(module, attribute))
    metrics, _ = load_metrics()
    lines += ["", "## Metrics", "", "| metric | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {cell(metric.description)} |" for name, metric in metrics.items()]
    return "\n".join(lines) + "\n"


def part_section(name: str, module: ModuleType, cls: type) -> list[str]:
    lines = ["", f"### {name}", "", f"`{module.__name__}.{cls.__name__}`", "", markdown(module.__doc__ or "")]
    return [*lines, "", markdown(doc_of(cls)), "", *field_table(cls, "")]


def api_page() -> str:
    lines = ["# Python API", "", "The modules that a script or a custom part imports from.", ""]
    for module in map(importlib.import_module, API):
        lines += [f"## {module.__name__}", "", markdown(module.__doc__ or ""), ""]
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
                continue
            if inspect.isfunction(value):
                lines += [
                    f"### {name}",
                    "",
                    "```python",
                    signature(name, value),
                    "```",
                    "",
                    markdown(doc_of(value)),
                    "",
                ]
            elif inspect.isclass(value):
                lines += [f"### {name}", "", markdown(doc_of(value)), "", *field_table(value, ""), ""]
                for method_name, method in vars(value).items():
                    method = getattr(method, "__func__", method)
                    if inspect.isfunction(method) and not method_name.startswith("_") and doc_of(method):
                        lines += [
                            "```python",
                            signature(method_name, method),
                            "```",
                            "",
                            markdown(doc_of(method)),
                            "",
                        ]
    return "\n".join(lines)


def field_table(cls: type, prefix: str) -> list[str]:
    """Returns a table of the fields of a dataclass: name, type, default and help."""
    if not dataclasses.is_dataclass(cls):
        return []
    sources = {name: pair for base in reversed(cls.__mro__) for name, pair in annotations_in(base).items()}
    rows = []
    for field in dataclasses.fields(cls):
        if field.name in ("parent", "name") and issubclass(cls, nn.Module):
            continue
        annotation, text = sources.get(field.name, (str(field.type), ""))
        rows.append(
            f"| {code(prefix + field.name)} | {code(annotation)} | {code(default_of(field))} | {cell(text)} |"
        )
    return ["| field | type | default | help |", "|---|---|---|---|", *rows] if rows else []


def annotations_in(cls: type) -> dict[str, tuple[str, str]]:
    """Returns the annotation of each field in the source of a class, and the string below it."""
    try:
        (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return {}
    fields, body = {}, getattr(definition, "body", [])
    for field, text in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            help_text = (
                text.value.value if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) else ""
            )
            fields[ast.unparse(field.target)] = ast.unparse(field.annotation), " ".join(str(help_text).split())
    return fields


def default_of(field: Any) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"{getattr(field.default_factory, '__name__', 'factory')}()"
    if field.default is dataclasses.MISSING:
        return "required"
    return f"{type(field.default).__name__}()" if dataclasses.is_dataclass(field.default) else repr(field.default)


def doc_of(value: Any) -> str:
    """Returns a docstring that the object itself has, without the signature that dataclasses make up."""
    text = (
        inspect.cleandoc(vars(value).get("__doc__") or "") if inspect.isclass(value) else inspect.getdoc(value) or ""
    )
    return "" if inspect.isclass(value) and text.startswith(f"{value.__name__}(") else text


def first_line(value: Any) -> str:
    return doc_of(value).partition("\n")[0]


def signature(name: str, function: Any) -> str:
    text = f"{name}{inspect.signature(function)}"
    return re.sub(r"\b(?:typing|pathlib|collections\.abc|jaxtyping|seqlab(?:\.\w+)+)\.(?=\w)", "", text).replace(
        "'", ""
    )


def markdown(text: str) -> str:
    """Escapes what Markdown would read as markup, outside of code."""
    lines = text.splitlines()
    return "\n".join(line if line.startswith("    ") else escaped(line) for line in lines)


def escaped(line: str) -> str:
    parts = line.split("`")
    return "`".join(re.sub(r"([*_<\[{#|])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))


def cell(text: str) -> str:
    return markdown(text.strip()).replace("\\|", "|").replace("|", "\\|").replace("\n", " ")


def code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]))
