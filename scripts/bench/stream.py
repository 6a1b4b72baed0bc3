"""Measures the time and memory of `seqlab decode` as its input grows.

    python scripts/bench/stream.py 20000 1000000

Trains a tiny model for two steps on generated pairs, and decodes each number of lines, with at most four tokens per
line.
"""

import sys
import tempfile
from pathlib import Path

from startup import ROOT, timed, write_pairs

SMALL = [f"--model.{name}=16" for name in ("dim", "hidden")]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = [f"--out={folder}/run", f"--data-dir={folder}/data", "--steps=2", "--validation.beam=0", *SMALL]
        for split in ("train", "validation"):
            write_pairs(folder, split, 1000)
            options += [f"--data.{split}-source={folder}/{split}.a", f"--data.{split}-target={folder}/{split}.b"]
        timed(["-m", "seqlab.cli", "train", str(ROOT / "configs/parallel_text.py"), "--text.size=500", *options])
        for count in map(int, sys.argv[1:]):
            write_pairs(folder, "lines", count)
            files = [f"--input={folder}/lines.a", f"--output={folder}/texts"]
            seconds, memory = timed(
                ["-m", "seqlab.cli", "decode", f"{folder}/run", *files, "--beam=1", "--max-length=4"]
            )
            print(f"{count:10,} lines: {seconds:7.1f} s, {memory:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
