"""Writes the reference pages of the documentation: commands, fields of a config, parts, and the Python API.

`conf.py` calls `write_reference` at each build, so the pages agree with the code that is imported.
"""

import dataclasses
import importlib
import inspect
from pathlib import Path
from types import ModuleType

from docstrings import cell, code, doc_of, field_table, first_line, markdown, signature
from help_texts import EXAMPLES, command_help
from model_facts import CLASSES, LENGTH, VOCABULARY, model_facts, receptive_field

from seqlab import config
from seqlab.cli.main import COMMANDS
from seqlab.metrics.registry import load_metrics
from seqlab.models.classifier_head import ClassifierHead
from seqlab.system.parts import names

CONFIG_CLASSES = ("Experiment", "Text", "Batching", "Optimizer", "Schedule", "Search", "Validation", "Checkpoints")
CONFIG_CLASSES += ("Parallel",)
MODULE_KINDS = ("models", "encoders", "readers")
DATACLASS_KINDS = {"tasks": "TASK", "datasets": "DATASET", "codecs": "CODEC"}
DATACLASS_KINDS |= {"parametrizations": "PARAMETRIZATION"}
CONFIG_OPTIONS = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(config.Experiment)}
COUNTS = (
    f"The counts assume the default sizes, a vocabulary of {VOCABULARY:,}, and {CLASSES} classes. Operations are "
    f"those of the matrix products in a forward pass over one row of {LENGTH} positions. "
)
NOTES = {
    "models": COUNTS + "[Cost of a step](../cost.md) has measurements.",
    "encoders": COUNTS + "They include the head of a classifier.",
    "readers": "",
}
AS_MODEL = {"models": lambda model: model, "encoders": ClassifierHead}
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
    helps = {name: command_help(name) for name in COMMANDS}
    for name, function in COMMANDS.items():
        lines.append(f"| [`seqlab {name}`](#seqlab-{name}) | {cell(first_line(function))} |")
    for name, text in helps.items():
        usage, _, rest = text.partition("\n")
        description, _, command = rest.partition("╭")[0].strip().partition("Example: ")
        lines += ["", f"(seqlab-{name})=", "", f"## seqlab {name}", "", "```text", usage, "```", ""]
        entries, example = options_in(text), EXAMPLES.get(name)
        lines += [markdown(description.strip()), ""]
        lines += ["```sh", " ".join(command.split()), "```", ""] if command else []
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
        lines += ["", f"## {kind.capitalize()}", "", NOTES[kind]]
        for name in names(kind):
            module = importlib.import_module(f"seqlab.{kind}.{name}")
            part = type(module.TINY)()
            lines += part_section(name, module, type(part))
            if kind in AS_MODEL:
                lines += ["", f"{model_facts(AS_MODEL[kind](part))} {receptive_field(part)}"]
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
