"""Limits on the code: the sizes of files, functions and signatures, pronouns as names, and `__init__.py` files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("seqlab", "scripts") for path in (ROOT / folder).rglob("*.py"))
MAX_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS, MAX_PRONOUNS = 400, 80, 8, 19
PRONOUNS = frozenset(
    "one ones found other others what how who whom whose where ready some each both these those this that its theirs "
    "ours mine it they them which such every another nothing something everything none".split()
)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Returns all parameters except `self` and `cls`. `*args` and `**options` count as one each."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [argument.arg for argument in (*named, *extra) if argument.arg not in ("self", "cls")]


def problems(source: str) -> list[str]:
    """Returns descriptions of what exceeds a limit in a file."""
    lines = len(source.splitlines())
    excesses = [f"{lines} lines"] if lines > MAX_LINES else []
    for function in functions(ast.parse(source)):
        length, count = function.end_lineno - function.lineno + 1, len(parameters(function))
        excesses += [f"{function.name} has {length} lines"] if length > MAX_FUNCTION_LINES else []
        excesses += [f"{function.name} has {count} parameters"] if count > MAX_PARAMETERS else []
    return excesses


def pronouns(tree: ast.AST) -> list[str]:
    """Returns the pronouns among the names of variables, attributes, parameters, functions, classes and aliases."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.append(node.attr)
        elif isinstance(node, ast.arg):
            names.append(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            names.append(node.name)
        elif isinstance(node, ast.alias):
            names.append(node.asname)
    return [name for name in names if name in PRONOUNS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_limits(path):
    assert problems(path.read_text(encoding="utf-8")) == []


def test_few_names_are_pronouns():
    by_file = {path: pronouns(ast.parse(path.read_text())) for path in FILES if path.is_relative_to(ROOT / "seqlab")}
    assert sum(map(len, by_file.values())) <= MAX_PRONOUNS, {
        str(path): names for path, names in by_file.items() if names
    }


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=str)
def test_packages_hold_no_definitions(path):
    """Except for `seqlab.load`, which imports what it needs when it is called."""
    definitions = [node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")]
    assert definitions == (["load"] if path.parent == ROOT / "seqlab" else [])


def test_the_checks_can_fail():
    body = "\n".join("    x = 1" for _ in range(MAX_FUNCTION_LINES))
    many = ", ".join(f"a{i}" for i in range(MAX_PARAMETERS))
    assert problems(f"def f():\n{body}") == [f"f has {MAX_FUNCTION_LINES + 1} lines"]
    assert problems(f"def f(self, {many}): ...") == []
    assert problems(f"def f(self, {many}, *args, **more): ...") == [f"f has {MAX_PARAMETERS + 2} parameters"]
    assert problems("x = 1\n" * (MAX_LINES + 1)) == [f"{MAX_LINES + 1} lines"]
    names = pronouns(ast.parse("import x as which\none = 1\ndef found(other, name): ...\nfor each in x: x.what = 1"))
    assert sorted(names) == ["each", "found", "one", "other", "what", "which"]
