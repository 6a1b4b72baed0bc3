"""Measures startup: `seqlab train` to its first steps, as the data grows, and `seqlab decode` of one line.

    python scripts/bench/startup.py [--pairs 10000 100000 1000000]

For each number of pairs, generates pairs, trains a tiny model for two steps, and trains again in a new run, for which
the data is already prepared. In rows named cold, the cache of compiled programs is empty. The last run is used for
decoding.
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from rounds import grown, run_main, tell

ROOT = Path(__file__).parents[2]
ROUNDS = 5


def main(pairs: tuple[int, ...] = (10_000, 100_000, 1_000_000)) -> None:
    if not pairs:
        sys.exit("--pairs needs at least one number of pairs")
    found: dict[str, list[tuple[float, float]]] = {"first": [], "again": []}
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would override XDG_CACHE_HOME
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        for count in pairs:
            folder = Path(name) / str(count)
            folder.mkdir()
            for turn in found:
                seconds, memory = timed(training(folder, count, f"{folder}/{turn}"))
                found[turn].append((seconds, memory))
                print(f"# {count:10,} pairs, {turn}: {seconds:7.1f} s, {memory:.2f} GiB", flush=True)
        beginnings(folder, pairs[-1])
    for turn, what in (("first", "prepare"), ("again", "start")):
        seconds, memory = zip(*found[turn], strict=True)
        notes = "seqlab train, two steps of a tiny model, from the command to the end"
        grown(f"growth/{what}/seconds", "pairs", pairs, seconds, "s", notes)
        grown(f"growth/{what}/memory", "pairs", pairs, memory, "GiB", notes)


def beginnings(folder: Path, count: int) -> None:
    """Measures the first step, and decoding one line, each with and without cached programs."""
    line = folder / "line"
    line.write_text((folder / "validation.a").read_text().split("\n")[0] + "\n")
    decode = [
        "-m",
        "seqlab.cli.main",
        "decode",
        f"{folder}/again",
        f"--input={line}",
        f"--output={folder}/text",
        "--beam=5",
    ]
    kept = os.environ["XDG_CACHE_HOME"]
    for what, command in (
        ("first_step", lambda at: training(folder, count, f"{folder}/{at}")),
        ("decode_line", lambda at: decode),
    ):
        for state in ("cold", "warm"):
            times = []
            for turn in range(ROUNDS + (state == "warm")):
                os.environ["XDG_CACHE_HOME"] = kept if state == "warm" else f"{kept}-{what}-{turn}"
                times.append(timed(command(f"{what}-{state}-{turn}"))[0])
            notes = f"a whole command, {count:,} pairs; cold: no cached programs; warm: run once before"
            kept_times = times[1:] if state == "warm" else times  # the first run fills the cache
            tell(f"begin/{what}/{state}", {"seqlab": kept_times}, "seqlab", None, "s", notes)


def training(folder: Path, count: int, out: str) -> list[str]:
    """Returns the training command. Creates its data if it does not exist."""
    for name, size in (("train", count), ("validation", 100)):
        if not (folder / f"{name}.b").exists():
            write_pairs(folder, name, size)
    files = [
        f"--data.{split}-{side}={folder}/{split}.{end}"
        for split in ("train", "validation")
        for side, end in (("source", "a"), ("target", "b"))
    ]
    rest = ["--steps=2", "--text.kind=bpe", "--text.size=1000", "--validation.beam=0", f"--data-dir={folder}/data"]
    return ["-m", "seqlab.cli", "train", str(ROOT / "configs/parallel_text.py"), f"--out={out}", *files, *rest]


def write_pairs(folder: Path, name: str, count: int) -> None:
    """Writes sentences of 3 to 20 random words, and their reversals."""
    rng = random.Random(count)
    words = ["".join(rng.choices("aeioubdfgklmnprst", k=rng.randint(2, 7))) for _ in range(3000)]
    with (folder / f"{name}.a").open("w") as left, (folder / f"{name}.b").open("w") as right:
        for _ in range(count):
            sentence = rng.choices(words, k=rng.randint(3, 20))
            left.write(" ".join(sentence) + "\n")
            right.write(" ".join(sentence[::-1]) + "\n")


def timed(arguments: list[str]) -> tuple[float, float]:
    """Returns the seconds and the peak memory in GiB of a command. Its output goes to standard error."""
    begun = time.perf_counter()
    to_errors = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=to_errors)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed")
    return time.perf_counter() - begun, usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


if __name__ == "__main__":
    run_main(main)
