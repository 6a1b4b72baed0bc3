"""How long `seqlab train` takes to its first steps, and how much memory, as the data grows: the first time and again.

    python scripts/bench/startup.py 10000 100000 1000000 5000000

Generates pairs of that number, trains two steps of a tiny model on them, and does so once more in a new run.
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def write_pairs(folder: Path, name: str, count: int) -> None:
    """Sentences of 3 to 20 made-up words, and their mirror images."""
    rng = random.Random(count)
    words = ["".join(rng.choices("aeioubdfgklmnprst", k=rng.randint(2, 7))) for _ in range(3000)]
    with (folder / f"{name}.a").open("w") as left, (folder / f"{name}.b").open("w") as right:
        for _ in range(count):
            sentence = rng.choices(words, k=rng.randint(3, 20))
            left.write(" ".join(sentence) + "\n")
            right.write(" ".join(sentence[::-1]) + "\n")


def timed(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak memory, in GiB, of a command."""
    begun = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed")
    return time.perf_counter() - begun, usage.ru_maxrss / 2**20


def main() -> None:
    for count in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
            folder = Path(name)
            write_pairs(folder, "train", count)
            write_pairs(folder, "validation", 100)
            options = [
                f"--data.{split}-{side}={folder}/{split}.{end}"
                for split in ("train", "validation")
                for side, end in (("source", "a"), ("target", "b"))
            ]
            options += [
                "--steps=2",
                "--text.kind=bpe",
                "--text.size=1000",
                "--validation.beam=0",
                f"--data-dir={folder}/data",
            ]
            for turn in ("first", "again"):
                command = [
                    "-m",
                    "seqlab.cli",
                    "train",
                    str(ROOT / "configs/parallel_text.py"),
                    f"--out={folder}/{turn}",
                ]
                seconds, memory = timed([*command, *options])
                print(f"{count:10,} pairs, {turn}: {seconds:7.1f} s, {memory:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
