"""Docstrings, fields and signatures as Markdown."""

import ast
import dataclasses
import inspect
import re
from typing import Any

from flax import linen as nn


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
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", f"{name}{inspect.signature(function)}")
    text = re.sub(r"<function ([^ ]+) at 0x[0-9a-f]+>", r"\1", text)
    return re.sub(r"\b(?:typing|pathlib|collections\.abc|jaxtyping|seqlab(?:\.\w+)+)\.(?=\w)", "", text)


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
