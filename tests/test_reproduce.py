"""The README's table of results is what the file of results says, and every row can be run."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))


def test_the_table_is_of_the_file():
    written = (ROOT / "README.md").read_text().partition(SCRIPT["BEGIN"])[2].partition(SCRIPT["END"])[0]
    assert written == SCRIPT["table"](SCRIPT["read_results"]())


@pytest.mark.parametrize("name", SCRIPT["ROWS"])
def test_a_row_names_what_there_is(name):
    for label, commands in SCRIPT["ROWS"][name].runs.items():
        for command in commands:
            for part in command:
                assert not part.endswith(".py") or (ROOT / part).is_file(), (label, part)
        assert commands[-1][-1] == "--json" or commands[-1][0].startswith("scripts/")


def test_what_runs_is_written_down(tmp_path, monkeypatch):
    """A run whose command prints scores; again it is not run; one that fails leaves no line."""
    results, script = tmp_path / "results.jsonl", tmp_path / "score.py"
    script.write_text(
        'print("""{"scores": [{"name": "BLEU", "value": 12.34}, {"name": "x", "value": 1}], "data": {}}""")'
    )
    row = SCRIPT["Row"]("what", "-", {"a": ((str(script), "{seed}"),), "b": ((str(script) + "x",),)}, ("BLEU",))
    monkeypatch.setitem(SCRIPT["ROWS"], "row", row)
    reproduce = SCRIPT["reproduce"]
    monkeypatch.setitem(reproduce.__globals__, "RESULTS", results)
    with pytest.raises(ValueError, match="failed with exit code 2"):
        reproduce("row", None, 3, None)
    (line,) = map(json.loads, results.read_text().splitlines())
    assert (line["run"], line["seed"], line["scores"]) == ("a", 3, [{"name": "BLEU", "value": 12.34}])
    reproduce("row", None, 3, "a")
    assert len(results.read_text().splitlines()) == 1
    assert "| what | a (seed 3) 12.3 | - | `row` |" in SCRIPT["table"]([line])
    with pytest.raises(ValueError, match="has no run 'c': one of a, b"):
        reproduce("row", None, 3, "c")
