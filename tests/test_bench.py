"""What the benchmarks' page says of the lines that they print."""

import json
from types import SimpleNamespace

import benchmarks
import pytest
import rounds


def test_lines(capsys):
    rates = {"a": [3.0, 1.0, 2.0], "b": [4.0, 4.0, 5.0], "c": [1.0, 9.0, 1.0]}
    assert rounds.fastest(rates, ["b", "c"]) == "b"
    rounds.tell("x/y", rates, "a", "b", "tokens/s", "", limit=8.0)
    rounds.grown("growth/z", "positions", [1, 2, 4, 8, 16], [5.0, 12.0, 48.0, 192.0, 768.0], "s")
    told, curve = map(json.loads, capsys.readouterr().out.splitlines())
    assert (told["ours"], told["peer"], told["ratio"], told["limit_fraction"]) == (2.0, 4.0, 0.4, 0.25)
    assert told["ratios"] == [0.25, 0.75]  # of the rounds; the ratio is their median
    assert told["spread"] == {"a": [1.0, 3.0], "b": [4.0, 5.0]}
    assert curve["exponent"] == 2.0  # what is small and constant does not count


def test_turns():
    calls = []
    rates = rounds.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 1.0, 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert {who: len(found) for who, found in rates.items()} == {"a": 3, "b": 3}


def test_page(tmp_path, monkeypatch):
    """The newest line of each name, and whether it reaches what it should."""
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
    monkeypatch.setattr(benchmarks, "LINES", tmp_path / "lines.jsonl")
    monkeypatch.setattr(benchmarks, "PAGE", tmp_path / "page.md")
    benchmarks.LINES.write_text("".join(json.dumps({**line, **about}) + "\n" for line in lines))
    benchmarks.PAGE.write_text("before\n" + benchmarks.BEGIN + "stale\n" + benchmarks.END + "after\n")
    for _ in range(2):  # again: the same
        benchmarks.write_page()
        text = benchmarks.PAGE.read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "stale" not in text
        assert "old" not in text
        assert f"| {name} | 150 tokens/s | 100 | 1.5 | 1.3: reached |" in text
        assert "| begin/decode_line/warm | 4.5 s |  |  | at most 4: not reached |" in text
        assert "not measured on a GPU yet" in text
        assert "| growth/z | n | 1, 2 | 1, 2 s | 1.0 | 1 |" in text
    assert (tmp_path / "growth.png").stat().st_size > 1000
    benchmarks.PAGE.write_text("nothing to stand between")
    with pytest.raises(SystemExit, match="has lost the lines"):
        benchmarks.write_page()


def test_unknown_benchmark(monkeypatch):
    with pytest.raises(SystemExit, match="no benchmark 'trian': one of train, hotspots"):
        benchmarks.main(only=("trian",))


SCRIPT = """
import json, sys
print("# a comment")
print(json.dumps({"name": sys.argv[1], "ours": 1.0, "peer": None, "ratio": None, "unit": "s", "notes": ""}))
sys.exit(int(sys.argv[2]))
"""


def test_what_fails_is_named_and_the_rest_runs(tmp_path, monkeypatch):
    """Lines are kept, with what they were measured on. That there is no GPU is no failure."""
    folder = tmp_path / "scripts" / "bench"
    folder.mkdir(parents=True)
    for name in ("x.py", "gpu.py"):
        (folder / name).write_text(SCRIPT)
    monkeypatch.setattr("machine.ROOT", tmp_path)
    monkeypatch.setattr(benchmarks, "LINES", tmp_path / "lines.jsonl")
    written = []
    monkeypatch.setattr(benchmarks, "write_page", lambda: written.append(benchmarks.LINES.read_text().splitlines()))
    commands = {
        "a": ["x.py", "bad", "1"],
        "b": ["x.py", "good", "0"],
        "c": ["gpu.py", "none", "2"],
        "d": ["gpu.py", "broken", "1"],
    }
    monkeypatch.setattr(benchmarks, "COMMANDS", commands)
    with pytest.raises(SystemExit, match="^failed: a, d$"):
        benchmarks.main(only=tuple(commands))
    [lines] = written
    found = [SimpleNamespace(**json.loads(line)) for line in lines]
    assert [one.name for one in found] == ["bad", "good", "none", "broken"]
    assert [one.command for one in found] == [f"python scripts/bench/{' '.join(one)}" for one in commands.values()]
    assert found[0].versions["jax"]
    assert found[0].machine.endswith("cores")
