"""Reproduces a row of the results in docs/results.md, from data to scores, and writes the table of results.

    python scripts/reproduce.py adding-200
    python scripts/reproduce.py multi30k-tok --folder DIR_WITH_MULTI30K
    python scripts/reproduce.py table

A row consists of runs, and a run of commands, which are printed as they are run. The folder of a run is
runs/ROW/RUN, or runs/ROW/RUN-N with --seed N. A run that starts from another one uses that of seed 0. Each run
appends a line to docs/results.jsonl with its scores, seed, seconds, versions and machine, and writes the same line
to a JSON file next to its folder. A second call runs only what is missing there. `table` writes the table in
docs/results.md and its curves from the last line of each run.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from machine import ROOT, commit, cpu, python, versions
from rows import ROWS
from tyro.conf import Positional, arg

from seqlab.runs.log import read_log
from seqlab.system.errors import SeqlabError
from seqlab.system.files import write_atomically

RESULTS = ROOT / "docs" / "results.jsonl"
BEGIN, END = "<!-- results: written by scripts/reproduce.py table -->\n", "<!-- end of results -->\n"
CITED = ("BLEU", "tokenized BLEU", "ROUGE-1")  # scores whose signatures are cited
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "sentencepiece", "sacrebleu", "rouge-score", "scikit-learn")


def reproduce(name: str, folder: Path | None, seed: int, only: str | None) -> None:
    """Runs the missing runs of a row and records their results. `folder` contains the local files of the datasets.
    Raises `SeqlabError` if the row needs it, if the row has no run `only`, or if a command fails.
    """
    row = ROWS[name]
    if only is not None and only not in row.runs:
        raise SeqlabError(f"{name} has no run {only!r}: choose one of {', '.join(row.runs)}")
    arguments = [part for commands in row.runs.values() for command in commands for part in command.arguments]
    if folder is None and any("{folder}" in argument for argument in arguments):
        raise SeqlabError(f"{name} needs local files: give --folder DIR")
    for label, commands in row.runs.items():
        suffix = f"-{seed}" if seed else ""
        run = Path("runs") / name / (re.sub(r"\W+", "-", label) + suffix)
        record = ROOT / f"{run}.json"
        if only not in (None, label):
            continue
        if record.exists():
            print(f"{run} is done: {record} has its scores")
            continue
        folder_name = str(folder.resolve() if folder else "")
        places = {
            "run": str(run),
            "row": f"runs/{name}",
            "folder": folder_name,
            "seed": str(seed),
            "suffix": suffix,
        }
        is_new, begin, code, output = not (ROOT / run).exists(), time.perf_counter(), commit(), ""
        for command in commands:
            if command.makes is None or not (ROOT / command.makes.format(**places)).exists():
                output = execute([part.format(**places) for part in command.arguments])
        result = json.loads(output)
        scores = [score for score in result["scores"] if score["name"] in row.scores]
        if not scores:
            raise SeqlabError(f"{run} has no score named {' or '.join(row.scores)}")
        line: dict[str, Any] = {
            "row": name,
            "run": label,
            "seed": seed,
            "scores": scores,
            "seconds": round(time.perf_counter() - begin) if is_new else None,  # resumed runs are not timed
            "machine": cpu(),
            "versions": versions(PACKAGES),
            "commit": code,
            "data": result["data"],
        }
        if row.curve:
            records = read_log(ROOT / run)
            line["curve"] = [(entry["step"], entry[row.curve]) for entry in records if row.curve in entry]
        with RESULTS.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, json.dumps(line) + "\n")


def execute(command: list[str]) -> str:
    """Runs `python COMMAND` and returns its output. Raises `SeqlabError` if it fails."""
    print("$ python " + shlex.join(command), flush=True)
    try:
        return "".join(python(command))
    except subprocess.CalledProcessError as error:
        raise SeqlabError(f"the command failed with exit code {error.returncode}") from None


def read_results() -> list[dict[str, Any]]:
    """Returns the last line of each run."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    return list({(line["row"], line["run"], line["seed"]): line for line in lines}.values())


def table(results: list[dict[str, Any]]) -> str:
    """Returns the table in docs/results.md, in Markdown, with the rows that have results."""
    lines = [
        "| what | figure | published | `python scripts/reproduce.py` ... | time, machine |",
        "|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        row_results = of_row(results, name)
        if not row_results:
            continue
        missing = [f"{run} was not run" for run in row.runs if run not in {line["run"] for line in row_results}]
        figures = "; ".join([*map(figure, row_results), *missing, *baselines(row_results)])
        machines = "; ".join(dict.fromkeys(line["machine"] for line in row_results))
        times = [line["seconds"] for line in row_results]
        cost = f"{sum(times) / 60:.0f} min, {machines}" if None not in times else machines
        lines.append(f"| {row.title} | {figures} | {row.published} | `{name}` | {cost} |")
    cited = [(line["row"], score) for line in results for score in line["scores"] if score["name"] in CITED]
    signatures = dict.fromkeys(f"{row}, {score['name']} `{score['signature']}`" for row, score in cited)
    return "\n".join([*lines, *(["", "Signatures: " + "; ".join(signatures) + "."] if signatures else [])]) + "\n"


def of_row(results: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Returns the results of a row, in the order of its runs."""
    runs = list(ROWS[name].runs)
    return sorted((line for line in results if line["row"] == name), key=lambda line: runs.index(line["run"]))


def figure(line: dict[str, Any]) -> str:
    """Returns the name of a run and its scores. A single score is not named, since the row names it."""
    seed = f" (seed {line['seed']})" if line["seed"] else ""
    reported = [score for score in line["scores"] if score["name"] in ROWS[line["row"]].scores]
    own = [score for score in reported if "(" not in score["name"]]
    if len(own) == 1:
        return f"{line['run']}{seed} {shown(own[0]['value'])}"
    return f"{line['run']}{seed}: {', '.join(map(named, own))}"


def baselines(lines: list[dict[str, Any]]) -> list[str]:
    """Returns the scores of trivial baselines, such as "accuracy (majority)", which all runs of a row share."""
    return list(dict.fromkeys(named(score) for line in lines for score in line["scores"] if "(" in score["name"]))


def named(score: dict[str, Any]) -> str:
    return f"{score['name']} {shown(score['value'])}"


def shown(value: float) -> str:
    size = abs(value)
    return f"{value:.1f}" if size >= 1 else f"{value:.3f}" if size >= 0.001 else f"{value:.1e}"


def draw(results: list[dict[str, Any]], rows: list[str], path: Path) -> None:
    """Plots the curves of some rows side by side, on a logarithmic scale."""
    from matplotlib.figure import Figure

    chart = Figure(figsize=(5 * len(rows), 3.6), layout="constrained")
    for axis, name in zip(chart.subplots(1, len(rows), squeeze=False, sharey=True)[0], rows, strict=True):
        for line in of_row(results, name):
            axis.plot(*zip(*line["curve"], strict=True), marker=".", label=line["run"])
        axis.set(title=ROWS[name].title.partition(":")[0], xlabel="step", yscale="log")
        axis.set_ylabel(ROWS[name].curve)
        axis.grid(alpha=0.3)
        axis.legend()
    chart.savefig(path, dpi=110)


def draw_compression(results: list[dict[str, Any]], path: Path) -> None:
    """Plots the BLEU of the pruned models over their share of zeros, and that of the quantized models as lines."""
    from matplotlib.figure import Figure

    bleu = {line["run"]: line["scores"][0]["value"] for line in of_row(results, "compress-multi30k")}
    if "float32" not in bleu:
        return
    zeros = {int(run.partition("%")[0]): value for run, value in bleu.items() if "zeros" in run}
    chart = Figure(figsize=(5, 3.6), layout="constrained")
    axis = chart.subplots()
    axis.plot(*zip(*sorted(({0: bleu["float32"]} | zeros).items()), strict=True), marker=".", label="pruned")
    for run, style in (("int8", ":"), ("int4", "--")):
        if run in bleu:
            axis.axhline(bleu[run], color="gray", linestyle=style, label=run)
    axis.set(xlabel="zeros, % of the kernels", ylabel="BLEU")
    axis.grid(alpha=0.3)
    axis.legend()
    chart.savefig(path, dpi=110)


def write_table() -> None:
    results = read_results()
    page = ROOT / "docs" / "results.md"
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SeqlabError(f"{page} lacks the lines that enclose the table: {BEGIN.strip()} and {END.strip()}")
    write_atomically(page, before + BEGIN + table(results) + END + after)
    draw(results, ["adding-200", "adding-400"], ROOT / "docs" / "adding_problem.png")
    draw(results, ["copy-500"], ROOT / "docs" / "copy_memory.png")
    draw_compression(results, ROOT / "docs" / "compression.png")


def main(
    row: Annotated[Positional[str], arg(metavar="ROW|table", help=", ".join(ROWS))],
    folder: Annotated[
        Path | None,
        arg(
            metavar="DIR",
            help="Folder with the subfolders sentences, sick, snips, multi30k and tinyshakespeare; for the rows "
            "multi30k-*, the folder of Multi30k itself.",
        ),
    ] = None,
    seed: Annotated[int, arg(help="Random seed of training.")] = 0,
    only: Annotated[str | None, arg(metavar="RUN", help="Run only this run of the row.")] = None,
) -> None:
    """Reproduce a row of the results in docs/results.md, or write the table."""
    if row == "table":
        write_table()
    elif row not in ROWS:
        raise SeqlabError(f"no row {row!r}: choose one of {', '.join(ROWS)}, or table")
    else:
        reproduce(row, folder, seed, only)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except SeqlabError as error:
        sys.exit(f"reproduce: {error}")
