"""The tables of docs/results.md and README.md agree with docs/results.jsonl; rows name existing files and fields."""

import json
import runpy
from pathlib import Path

import pytest

from seqlab import catalogue

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))
DEFINITIONS = runpy.run_path(str(ROOT / "scripts" / "rows.py"))


def test_the_table_is_of_the_file():
    written = (ROOT / "docs" / "results.md").read_text().partition(SCRIPT["BEGIN"])[2].partition(SCRIPT["END"])[0]
    assert written == SCRIPT["table"](SCRIPT["read_results"]())


def test_the_readme_agrees_with_the_results():
    """Each figure of its table is the score of the latest run of that row and model."""
    results = {
        (line["row"], line["run"], score["name"]): SCRIPT["shown"](score["value"])
        for line in SCRIPT["read_results"]()
        for score in line["scores"]
    }
    section = (ROOT / "README.md").read_text().partition("## Results")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) > 5
    for row, model, score, figure, _ in rows:
        assert results[row.split("`")[1], model, score] == figure


@pytest.mark.parametrize("name", SCRIPT["ROWS"])
def test_a_row_names_what_there_is(name, monkeypatch):
    """Checks the scripts, the configs, and the fields that options set."""
    monkeypatch.chdir(ROOT)
    for run in SCRIPT["ROWS"][name].runs.values():
        commands = [command.arguments for command in run]
        for command in commands:
            for path in (part for part in command if part.endswith(".py")):
                assert (ROOT / path).is_file()
        for _, _, what, config, *options in (one for one in commands if one[:3] == ("-m", "seqlab.cli", "train")):
            assert what == "train"
            experiment = catalogue.load_config(Path(config))
            for option in (option for option in options if option.startswith("--")):
                value = experiment
                for field in option.removeprefix("--").replace("-", "_").split("."):
                    assert option in ("--out", "--tokenizer", "--init-from") or hasattr(value, field), option
                    value = getattr(value, field, None)
        assert commands[-1][-1] == "--json" or commands[-1][0].startswith("scripts/")


@pytest.mark.parametrize("row", ["multi30k-en-de", "synopsis"])
def test_a_comparison_differs_in_the_model_alone(row, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = SCRIPT["ROWS"][row].runs.values()
    configs = [one.arguments[3] for run in runs for one in run if one.arguments[2] == "train"]
    first, *others = (catalogue.load_config(Path(config)) for config in configs)
    for other in others:
        assert all(name.startswith("model.") for name in catalogue.differences(first, other))


def test_what_runs_is_written_down(tmp_path, monkeypatch, capsys):
    """A finished run is recorded and not repeated. A run that fails, or lacks its score, is not recorded."""
    results, script = tmp_path / "docs.jsonl", tmp_path / "score.py"
    scores = [{"name": "BLEU", "value": 12.34, "signature": "s"}, {"name": "x", "value": 1, "signature": ""}]
    script.write_text(f"import json; print(json.dumps({{'scores': {scores}, 'data': {{}}}}))")
    command = DEFINITIONS["Command"]
    row = DEFINITIONS["Row"](
        "what", "-", {"a": (command((str(script), "{seed}")),), "b": (command((str(script) + "x",)),)}, ("BLEU",)
    )
    monkeypatch.setitem(SCRIPT["ROWS"], "row", row)
    monkeypatch.setitem(SCRIPT["ROWS"], "none", DEFINITIONS["Row"]("what", "-", {"a": row.runs["a"]}, ("BLUE",)))
    reproduce = SCRIPT["reproduce"]
    monkeypatch.setitem(reproduce.__globals__, "RESULTS", results)
    monkeypatch.setitem(reproduce.__globals__, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="failed with exit code 2"):
        reproduce("row", None, 3, None)
    (line,) = map(json.loads, results.read_text().splitlines())
    assert (line["run"], line["seed"], line["scores"]) == ("a", 3, scores[:1])
    reproduce("row", None, 3, "a")
    assert "a-3 is done" in capsys.readouterr().out
    assert len(results.read_text().splitlines()) == 1
    table = SCRIPT["table"]([line])
    assert "| what | a (seed 3) 12.3; b was not run | - | `row` |" in table
    assert table.endswith("Signatures: row, BLEU `s`.\n")
    with pytest.raises(ValueError, match="has no run 'c': choose one of a, b"):
        reproduce("row", None, 3, "c")
    with pytest.raises(ValueError, match="has no score named BLUE"):
        reproduce("none", None, 0, None)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(SCRIPT["BEGIN"])
    with pytest.raises(ValueError, match="lacks the lines that enclose the table"):
        SCRIPT["write_table"]()
