"""Every name that a script imports from the project exists, also in scripts that no test runs."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))


def is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def missing_names(source: str) -> list[str]:
    missing = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "seqlab":
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name) and not is_module(f"{node.module}.{name}"):
                    missing.append(f"{node.module}.{name}")
    return missing


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_imported_names_exist(path):
    assert missing_names(path.read_text(encoding="utf-8")) == []


def test_a_missing_name_is_found():
    assert missing_names("from seqlab.config import Search, Seach") == ["seqlab.config.Seach"]
