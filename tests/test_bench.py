"""What the benchmarks' page says of the lines that they print."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "scripts" / "bench"


@pytest.fixture(scope="module")
def bench():
    """The modules, which stand in a folder of scripts."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"bench_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return {name: load(name) for name in ("rounds", "all")}


def test_lines(bench, capsys):
    rounds = bench["rounds"]
    rates = {"a": [3.0, 1.0, 2.0], "b": [4.0, 4.0, 5.0], "c": [1.0, 9.0, 1.0]}
    assert rounds.fastest(rates, ["b", "c"]) == "b"
    rounds.tell("x/y", rates, "a", "b", "tokens/s", "", limit=8.0)
    rounds.grown("growth/z", "positions", [1, 2, 4, 8, 16], [5.0, 12.0, 48.0, 192.0, 768.0], "s")
    told, curve = map(json.loads, capsys.readouterr().out.splitlines())
    assert (told["ours"], told["peer"], told["ratio"], told["limit_fraction"]) == (2.0, 4.0, 0.4, 0.25)
    assert told["ratios"] == [0.25, 0.75]  # of the rounds; the ratio is their median
    assert told["spread"] == {"a": [1.0, 3.0], "b": [4.0, 5.0]}
    assert curve["exponent"] == 2.0  # what is small and constant does not count


def test_turns(bench):
    calls = []
    rates = bench["rounds"].in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 1.0, 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert {who: len(found) for who, found in rates.items()} == {"a": 3, "b": 3}


def test_page(bench, tmp_path, monkeypatch):
    """The newest line of each name, and whether it reaches what it should."""
    page = bench["all"]
    about = {"command": "python scripts/bench/x.py", "machine": "M", "versions": {"jax": "1"}, "commit": "abc"}
    name = "train/lstm/torch-float32"
    lines = [
        {"name": name, "ours": 100.0, "peer": 100.0, "ratio": 1.0, "unit": "tokens/s", "notes": "old"},
        {"name": name, "ours": 150.0, "peer": 100.0, "ratio": 1.5, "unit": "tokens/s", "notes": "new"},
        {"name": "begin/decode_line/warm", "ours": 4.5, "peer": None, "ratio": None, "unit": "s", "notes": ""},
        {
            "name": "growth/z",
            "over": "n",
            "sizes": [1, 2],
            "values": [1, 2],
            "exponent": 1.0,
            "unit": "s",
            "notes": "",
        },
    ]
    monkeypatch.setattr(page, "LINES", tmp_path / "lines.jsonl")
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    page.LINES.write_text("".join(json.dumps({**line, **about}) + "\n" for line in lines))
    page.PAGE.write_text("before\n" + page.BEGIN + "stale\n" + page.END + "after\n")
    for _ in range(2):  # again: the same
        page.write_page()
        text = page.PAGE.read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "stale" not in text
        assert "old" not in text
        assert f"| {name} | 150 tokens/s | 100 | 1.5 | 1.3: reached |" in text
        assert "| begin/decode_line/warm | 4.5 s |  |  | at most 4: not reached |" in text
        assert "not measured on a GPU yet" in text
        assert "| growth/z | n | 1, 2 | 1, 2 s | 1.0 | 1 |" in text
    assert (tmp_path / "growth.png").stat().st_size > 1000
    page.PAGE.write_text("nothing to stand between")
    with pytest.raises(SystemExit, match="has lost the lines"):
        page.write_page()


def test_unknown_benchmark(bench, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["all.py"])
    with pytest.raises(SystemExit, match="no benchmark 'trian': one of train, hotspots"):
        bench["all"].main(only=("trian",))
