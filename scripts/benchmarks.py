"""Runs all benchmarks and writes docs/benchmarks.md.

    python scripts/benchmarks.py --folder DIR_WITH_MULTI30K [--only train decode]

First trains the model for the decoding benchmarks in runs/bench, or resumes its training. Each benchmark prints lines
of JSON, which are stored in docs/benchmarks.jsonl with the machine, versions and commit. They replace the earlier
lines of the same benchmark, so that a benchmark can be repeated alone. Results that a failed benchmark did not print
are missing from the page, and the failed benchmarks are listed at the end. `--only page` only writes the page.
Without a GPU, the GPU results stay unchanged.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from machine import ROOT, commit, cpu, python, versions
from tyro.conf import arg

from seqlab.system.files import write_atomically

LINES = ROOT / "docs" / "benchmarks.jsonl"
PAGE = ROOT / "docs" / "benchmarks.md"
RUN, SOURCES = "runs/bench", "runs/bench.sources"
DATA = "multi30k/en-de"
KEPT = {"name", "unit", "command", "machine", "versions", "commit"}  # the keys of every line
OF_ROWS, OF_CURVES = {"ours", "peer", "ratio", "notes"}, {"over", "sizes", "values", "exponent"}
NO_GPU = 69  # the exit code of gpu.py
BEGIN, END = "<!-- measured: written by scripts/benchmarks.py -->\n", "<!-- end of measured -->\n"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "sentencepiece")
PEERS = ("torch", "transformers", "ctranslate2", "joeynmt")
COMMANDS = {
    "train": ["train.py"],
    "hotspots": ["hotspots.py", "--run", RUN, "--input", SOURCES],
    "greedy": ["greedy.py"],
    "decode": ["decode.py", RUN, "--input", SOURCES],
    "joey": ["joey.py", RUN, "--input", SOURCES, "--sentences", "200"],
    "tokenizing": ["tokenizing.py", DATA, "--training", "120"],
    "startup": ["startup.py"],
    "growth": ["growth.py"],
    "lengths": ["lengths.py"],
    "gpu": ["gpu.py"],
}
TRAINING = ["--model.norm=post", "--model.dtype=float32", "--model.biases", "--steps=2000", "--schedule.warmup=400"]
AT_LEAST = {  # the minimum ratio to the peer, by the prefix of the name
    "train/transformer/torch-float32": 1.6,
    "train/transformer/joeynmt": 4.0,
    "train/lstm/torch-float32": 1.3,
    "train/gru_attention/torch-float32": 1.0,
    "train/tcn/torch-float32": 1.0,
    "decode/gru_attention/greedy-torch-float32": 1.0,
    "decode/beam5/ctranslate2-float32": 1.2,
    "decode/beam5/transformers-float32": 3.0,
    "decode/beam5/joeynmt": 15.0,
    "input/tokenizing": 1.0,
}
AT_MOST = {  # a key of the row, and its maximum
    "train/transformer/memory": ("ratio", 1.3),
    "begin/decode_line/warm": ("ours", 4.0),
    "input/wait": ("ours", 2.0),
}


def main(
    folder: Annotated[Path | None, arg(metavar="DIR", help="Folder with the files of Multi30k.")] = None,
    only: tuple[str, ...] = tuple(COMMANDS),
) -> None:
    """Run the benchmarks and write the page."""
    unknown = [name for name in only if name not in (*COMMANDS, "page")]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}: choose one of {', '.join(COMMANDS)}, or page")
    read_page(), read_lines()  # fail before hours of work
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if folder is not None and not seqlab("prepare", DATA, "--folder", str(folder.resolve())):
        sys.exit(1)
    about, failed = {"versions": versions(PACKAGES + PEERS), "commit": commit()}, list[str]()
    if any(RUN in COMMANDS.get(name, []) for name in only) and not make_run():
        sys.exit(f"no model to decode with in {RUN}: give --folder DIR with the files of Multi30k once")
    try:
        for name in (name for name in only if name in COMMANDS):
            if not measure(COMMANDS[name], about):
                failed.append(name)
    finally:
        write_page()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def seqlab(*arguments: str) -> bool:
    """Runs a command of seqlab. Returns whether it succeeded."""
    return not subprocess.run([sys.executable, "-m", "seqlab.cli", *arguments], cwd=ROOT).returncode


def make_run() -> bool:
    """Trains the run for decoding, or resumes it, and writes its test sources. Returns whether that succeeded."""
    from seqlab import catalogue
    from seqlab.cli.options import DATA_DIR
    from seqlab.data.records import prepare

    if not seqlab("train", "configs/multi30k_transformer.py", "--out", RUN, *TRAINING):
        return False
    found = prepare(catalogue.dataset(DATA), ROOT / DATA_DIR).read("test_2016_flickr")
    write_atomically(ROOT / SOURCES, "".join(example["source"] + "\n" for example in found))
    return True


def measure(command: list[str], about: dict[str, Any]) -> bool:
    """Runs a benchmark and stores its lines of JSON as they come. Removes its earlier lines at the end. Returns
    whether it succeeded, or needs a GPU and there is none.
    """
    script = f"scripts/bench/{command[0]}"
    shown, on_gpu = f"python {' '.join([script, *command[1:]])}", command[0] == "gpu.py"
    about = {"command": shown, "machine": gpu() if on_gpu else cpu(), **about}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **({} if on_gpu else {"JAX_PLATFORMS": "cpu"})}
    print(f"# {shown}", flush=True)
    found, code = {}, 0
    try:
        for line in python([script, *command[1:]], environment):
            if line.startswith("{"):
                row = json.loads(line)
                found[row["name"]] = {**row, **about}
                keep([*(one for one in read_lines() if one["name"] not in found), *found.values()])
    except subprocess.CalledProcessError as error:
        code = error.returncode
    if on_gpu and code == NO_GPU:
        return True
    keep([one for one in read_lines() if one["name"] in found or one["command"].split()[1] != script])
    return code == 0


def keep(lines: list[dict[str, Any]]) -> None:
    write_atomically(LINES, "".join(json.dumps(line) + "\n" for line in lines))


def gpu() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "a GPU"


def read_lines() -> list[dict[str, Any]]:
    """Returns the stored lines. Exits if a line is malformed."""
    found = []
    for i, line in enumerate(LINES.read_text().splitlines() if LINES.exists() else (), 1):
        try:
            one = json.loads(line)
        except ValueError:
            one = None
        if not isinstance(one, dict) or not one.keys() >= KEPT | (OF_CURVES if "over" in one else OF_ROWS):
            sys.exit(f"{LINES}, line {i}: neither a row nor a curve: delete it")
        found.append(one)
    return found


def read_page() -> tuple[str, str]:
    """Returns the text before and after the tables. Exits if the markers of the tables are missing."""
    before, begin, rest = (PAGE.read_text() if PAGE.exists() else "").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE} has lost the lines that mark the tables")
    return before, after


def write_page() -> None:
    found, (before, after) = read_lines(), read_page()
    scripts = [f"scripts/bench/{command[0]}" for command in COMMANDS.values()]
    found.sort(key=lambda line: [*scripts, script := line["command"].split()[1]].index(script))
    rows = [line for line in found if "over" not in line]
    curves = [line for line in found if "over" in line]
    places = list(dict.fromkeys(place(line) for line in found))
    parts = [*table(rows, places), "", *growth(curves, places), "", "Measured:", ""]
    parts += [f"{i}. {one}" for i, one in enumerate(places, 1)]
    write_atomically(PAGE, before + BEGIN + "\n".join([*parts, ""]) + END + after)
    draw(rows, curves)


def place(line: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(line["versions"].items()))
    return f"`{line['command']}`, {line['machine']}, at {line['commit']}; {packages}"


def table(rows: list[dict[str, Any]], places: list[str]) -> list[str]:
    lines = [
        "| row | ours | peer | ratio, range | goal | share of the limit | spread: ours, peer | source | notes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        ratio += f", {one['ratios'][0]:.2f}-{one['ratios'][1]:.2f}" if "ratios" in one else ""
        spread = "; ".join(f"{low:g}-{high:g}" for low, high in one.get("spread", {}).values())
        share = f"{one['limit_fraction']:.0%}" if "limit_fraction" in one else ""
        peer = "" if one["peer"] is None else f"{one['peer']:g}"
        ours = f"{one['ours']:g} {one['unit']}"
        cells = one["name"], ours, peer, ratio, judged(one), share, spread, places.index(place(one)) + 1, one["notes"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for name in ("gpu/", *AT_LEAST, *AT_MOST):
        if not any(one["name"].startswith(name) for one in rows):
            lines.append(f"| {name} | | | | not measured yet | | | | |")
    return lines


def judged(one: dict[str, Any]) -> str:
    """Returns the goal of a row, and whether the row reaches it."""
    if one["name"] in AT_MOST:
        what, most = AT_MOST[one["name"]]
        [(low, high)] = one.get("spread", {"": (one[what],) * 2}).values()
        within = ", within the spread" if low <= most < high else ""
        return f"at most {most:g}: {'reached' if one[what] <= most else 'not reached'}{within}"
    wanted = next((ratio for name, ratio in AT_LEAST.items() if one["name"].startswith(name)), None)
    if wanted is None:
        return ""
    low, high = one.get("ratios", [one["ratio"]] * 2)
    within = ", within the spread" if low < wanted <= high else ""
    return f"{wanted:g}: {'reached' if one['ratio'] >= wanted else 'not reached'}{within}"


def growth(curves: list[dict[str, Any]], places: list[str]) -> list[str]:
    lines = ["| curve | over | from, to | values | exponent | source |", "|---|---|---|---|---|---|"]
    for one in curves:
        values = ", ".join(f"{value:g}" for value in one["values"])
        ends = f"{one['sizes'][0]:,}, {one['sizes'][-1]:,}"
        by = places.index(place(one)) + 1
        cells = one["name"], one["over"], ends, f"{values} {one['unit']}", one["exponent"], by
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def draw(rows: list[dict[str, Any]], curves: list[dict[str, Any]]) -> None:
    """Plots the ratios, and the curves by the quantity that they grow with."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    against = [one for one in rows if one["ratio"] is not None and one["unit"].endswith("/s")]
    chart = Figure(figsize=(9, 0.32 * len(against) + 1), layout="constrained")
    axis = chart.subplots()
    axis.barh([one["name"] for one in against], [one["ratio"] - 1 for one in against], left=1)
    axis.axvline(1.0, color="black", linewidth=1)
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="speed relative to the peer (log scale)")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.grid(axis="x", alpha=0.3)
    chart.savefig(PAGE.with_name("benchmarks.png"), dpi=110)
    kinds = list(dict.fromkeys(one["over"] for one in curves if one["unit"] in ("s", "ms")))
    chart = Figure(figsize=(5 * max(len(kinds), 1), 5.5), layout="constrained")
    for axis, kind in zip(chart.subplots(1, max(len(kinds), 1), squeeze=False)[0], kinds, strict=False):
        for one in curves:
            if one["over"] == kind and one["unit"] in ("s", "ms"):
                seconds = [value / (1000 if one["unit"] == "ms" else 1) for value in one["values"]]
                label = f"{one['name'].removeprefix('growth/')}: {one['exponent']}"
                axis.loglog(one["sizes"], seconds, marker=".", label=label)
                axis.set_xticks(one["sizes"], [f"{size:,}" for size in one["sizes"]], fontsize=8)
        axis.xaxis.minorticks_off()
        axis.set(xlabel=kind, ylabel="seconds")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.14))
    chart.savefig(PAGE.with_name("growth.png"), dpi=110)


if __name__ == "__main__":
    tyro.cli(main)
