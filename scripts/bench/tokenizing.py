"""Compares the tokenizing of a dataset with plain SentencePiece on the same lines and all cores, and measures the
share of time that training on Multi30k waits for batches.

    python scripts/bench/tokenizing.py multi30k/en-de [--training 120]

Trains configs/multi30k_transformer.py for `--training` steps (0: skip training). Keeps the prepared dataset below the
data root, and no other files.
"""

import itertools
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from rounds import CORES, in_turns, run_main, tell
from tyro.conf import Positional, arg

from seqlab import catalogue
from seqlab.cli.options import DATA_DIR
from seqlab.codecs.sentencepiece import train_sentencepiece
from seqlab.config import Text
from seqlab.data.corpus import Corpus, encode_examples
from seqlab.data.records import prepare

ROOT = Path(__file__).parents[2]
STRETCHES = 6  # the number of log lines of a training


def main(
    data: Annotated[Positional[str], arg(metavar="DATA")],
    training: int = 0,
    rounds: int = 5,
) -> None:
    if training and training < STRETCHES:
        sys.exit(f"--training must be 0 or at least {STRETCHES} steps, not {training}")
    examples = list(prepare(catalogue.dataset(data), DATA_DIR).read("train"))
    texts = [text for example in examples for text in example.values()]
    lines = [line for text in texts for line in text.split("\n")]
    tokenizer = train_sentencepiece(texts, Text())
    columns = dict.fromkeys(examples[0], tokenizer)
    with tempfile.TemporaryDirectory() as name:
        numbers = itertools.count()

        def ours() -> Corpus:
            folder = Path(name) / str(next(numbers))
            folder.mkdir()
            return encode_examples(iter(examples), len(examples), "again", columns, folder)

        def alone() -> list[list[int]]:
            return tokenizer.processor.encode(lines, num_threads=CORES)

        corpus, ids = ours(), alone()
        wanted, at = {column: [] for column in columns}, iter(ids)
        for column, text in (pair for example in examples for pair in example.items()):
            wanted[column] += [token for _ in text.split("\n") for token in next(at)]
        for column, found in corpus.values.items():
            assert np.array_equal(found[found != tokenizer.newline], wanted[column]), column
        megabytes = sum(len(line.encode()) for line in lines) / 1e6
        rates = in_turns({"seqlab": ours, "SentencePiece": alone}, megabytes, rounds)
    notes = f"{len(lines):,} lines of {data}; ours also writes the ids to a file"
    tell("input/tokenizing", rates, "seqlab", "SentencePiece", "MB/s", notes)
    if training:
        with tempfile.TemporaryDirectory() as name:
            places = ["--out", f"{name}/run", "--data-dir", str(DATA_DIR.resolve())]
            sizes = ["--steps", str(training), "--log-every", str(training // STRETCHES)]
            judged = ["--validation.metric", "loss", "--validation.beam", "0"]
            command = ["-m", "seqlab.cli", "train", "configs/multi30k_transformer.py", *places, *sizes, *judged]
            subprocess.run([sys.executable, *command], check=True, cwd=ROOT, stdout=sys.stderr)
            found = [100 * share for share in waits(Path(name) / "run")][1:]  # the first stretch includes compilation
        steps = f"{len(found)} stretches of {training // STRETCHES} steps"
        notes = f"{steps} of configs/multi30k_transformer.py, from its log"
        tell("input/wait", {"seqlab": found}, "seqlab", None, "%", notes)


def waits(run: Path) -> Iterator[float]:
    """Yields the shares of time spent waiting for input, from the TensorBoard log of a run."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((run / "tensorboard").iterdir()):
        records = path.read_bytes()
        while records:
            size = struct.unpack("<Q", records[:8])[0]  # followed by two checksums of 4 bytes each
            event = Event.FromString(records[12 : 12 + size])
            records = records[16 + size :]
            yield from (value.simple_value for value in event.summary.value if value.tag == "input_wait")


if __name__ == "__main__":
    run_main(main)
