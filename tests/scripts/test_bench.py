"""The lines that benchmarks print, and the page of results."""

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
    assert told["ratios"] == [0.25, 0.75]  # the extremes; the ratio is the median
    assert told["spread"] == {"a": [1.0, 3.0], "b": [4.0, 5.0]}
    assert curve["exponent"] == 2.0  # a small constant has no influence


def test_turns():
    calls = []
    rates = rounds.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 1.0, 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert {who: len(found) for who, found in rates.items()} == {"a": 3, "b": 3}


def test_page(tmp_path, monkeypatch):
    """The page shows whether a row reaches its goal, and lists missing measurements."""
    about = {"command": "python scripts/bench/x.py", "machine": "M", "versions": {"jax": "1"}, "commit": "abc"}
    alone = {"peer": None, "ratio": None, "notes": ""}
    against = {"ours": 130.0, "peer": 100.0, "unit": "tokens/s", "notes": ""}
    lines = [
        {"name": "train/lstm/torch-float32", **against, "ratio": 1.2999, "ratios": [1.1, 1.5]},
        {"name": "train/tcn/torch-float32", **against, "ratio": 1.3, "ratios": [1.2, 1.4]},
        {"name": "begin/decode_line/warm", "ours": 4.5, "unit": "s", **alone},
        {"name": "input/wait", "ours": 1.5, "unit": "%", "spread": {"seqlab": [1.0, 2.5]}, **alone},
        {"name": "growth/z", "over": "n", "sizes": [1, 2], "values": [1, 2], "exponent": 1.0, "unit": "s"},
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
        assert "| 130 tokens/s | 100 | 1.30, 1.10-1.50 | 1.3: not reached, within the spread |" in text
        assert "| 130 tokens/s | 100 | 1.30, 1.20-1.40 | 1: reached |" in text
        assert "| begin/decode_line/warm | 4.5 s |  |  | at most 4: not reached |" in text
        assert "| input/wait | 1.5 % |  |  | at most 2: reached, within the spread |" in text
        assert text.count("not measured yet") == 1 + len(benchmarks.AT_LEAST) + len(benchmarks.AT_MOST) - 4
        assert "| growth/z | n | 1, 2 | 1, 2 s | 1.0 | 1 |" in text
    assert (tmp_path / "growth.png").stat().st_size > 1000
    benchmarks.PAGE.write_text("nothing to stand between")
    with pytest.raises(SystemExit, match="has lost the lines"):
        benchmarks.write_page()
    benchmarks.PAGE.write_text(text)
    good = benchmarks.LINES.read_text()
    for bad in ('{"name": "cut o', "1", json.dumps({"name": "x", "over": "n", "ratio": None, **about})):
        benchmarks.LINES.write_text(good + bad)
        with pytest.raises(SystemExit, match=f"line {len(lines) + 1}: neither a row nor a curve: delete it"):
            benchmarks.main(only=("page",))
    benchmarks.LINES.write_text(good)
    benchmarks.PAGE.unlink()
    with pytest.raises(SystemExit, match="has lost the lines"):
        benchmarks.main(only=("page",))


def test_unknown_benchmark(monkeypatch):
    with pytest.raises(SystemExit, match="no benchmark 'trian': choose one of train, hotspots"):
        benchmarks.main(only=("trian",))


SCRIPT = """
import json, sys
print("# a comment")
print(json.dumps({"name": sys.argv[1], "ours": 1.0, "peer": None, "ratio": None, "unit": "s", "notes": ""}))
sys.exit(int(sys.argv[2]))
"""


def test_what_fails_is_named_and_the_rest_runs(tmp_path, monkeypatch):
    """New lines replace the earlier lines of a benchmark, and record the machine. A missing GPU is not a failure."""
    folder = tmp_path / "scripts" / "bench"
    folder.mkdir(parents=True)
    for name in ("x.py", "z.py", "gpu.py"):
        (folder / name).write_text(SCRIPT)
    monkeypatch.setattr("machine.ROOT", tmp_path)
    monkeypatch.setattr(benchmarks, "LINES", tmp_path / "lines.jsonl")
    monkeypatch.setattr(benchmarks, "PAGE", tmp_path / "page.md")
    benchmarks.PAGE.write_text(benchmarks.BEGIN + benchmarks.END)
    about = {"unit": "s", "machine": "M", "versions": {}, "commit": "abc"}
    about |= {"ours": 1.0, "peer": None, "ratio": None, "notes": ""}
    others = [{"name": name, "command": f"python scripts/bench/{name}.py", **about} for name in ("x", "y", "gpu")]
    benchmarks.keep(others)
    written = []
    monkeypatch.setattr(benchmarks, "write_page", lambda: written.append(benchmarks.LINES.read_text().splitlines()))
    commands = {
        "a": ["x.py", "bad", "1"],
        "b": ["z.py", "good", "0"],
        "c": ["gpu.py", "none", "69"],
        "d": ["w.py", "missing"],
    }
    monkeypatch.setattr(benchmarks, "COMMANDS", commands)
    with pytest.raises(SystemExit, match="^failed: a, d$"):
        benchmarks.main(only=tuple(commands))
    [(*left, bad, good, none)] = written
    assert [*map(json.loads, left)] == others[1:]
    lines = bad, good, none
    found = [SimpleNamespace(**json.loads(line)) for line in lines]
    assert [one.name for one in found] == ["bad", "good", "none"]
    assert found[0].command == "python scripts/bench/x.py bad 1"
    assert found[0].versions["jax"]
    assert found[0].machine.endswith(("core", "cores"))
