"""How fast a data set is tokenized, beside SentencePiece alone on the same lines and all cores; and of a run, how
much of its time it waited for batches.

    python scripts/bench/tokenizing.py multi30k/en-de [--run RUN]

The data set's prepared form below the data root stays; nothing else does.
"""

import itertools
import statistics
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tyro
from rounds import CORES, in_turns, rounded, row, tell
from tyro.conf import Positional, arg

from seqlab import catalogue
from seqlab.cli import DATA_DIR
from seqlab.config import Text
from seqlab.datasets import prepare
from seqlab.text import tokenize, train_tokenizer


def main(
    data: Annotated[Positional[str], arg(metavar="DATA")],
    run: Annotated[Path | None, arg(metavar="RUN")] = None,
    rounds: int = 5,
) -> None:
    examples = list(prepare(catalogue.dataset(data), DATA_DIR).read("train"))
    texts = [text for example in examples for text in example.values()]
    lines = [line for text in texts for line in text.split("\n")]
    tokenizer = train_tokenizer(texts, Text())
    columns = dict.fromkeys(examples[0], tokenizer)
    with tempfile.TemporaryDirectory() as name:
        numbers = itertools.count()

        def ours() -> object:
            folder = Path(name) / str(next(numbers))
            folder.mkdir()
            return tokenize(iter(examples), len(examples), "again", columns, folder)

        def alone() -> object:
            return tokenizer.processor.encode(lines, num_threads=CORES)

        ours(), alone()
        megabytes = sum(len(line.encode()) for line in lines) / 1e6
        rates = in_turns({"seqlab": ours, "SentencePiece": alone}, megabytes, rounds)
    notes = f"{len(lines):,} lines of {data}; ours writes the ids to a file too"
    tell("input/tokenizing", rates, "seqlab", "SentencePiece", "MB/s", notes)
    if run is not None:
        found = [100 * share for share in waits(run)][1:]  # in the first stretch it compiles
        if not found:
            sys.exit(f"{run}: its log has fewer than two stretches")
        spread = {"seqlab": [rounded(min(found)), rounded(max(found))]}
        notes = f"{len(found)} stretches, as the run logged them"
        row("input/wait", statistics.median(found), None, "%", notes, spread=spread)


def waits(run: Path) -> Iterator[float]:
    """The shares of time that a run's log tells to TensorBoard."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((run / "tensorboard").iterdir()):
        records = path.read_bytes()
        while records:
            size = struct.unpack("<Q", records[:8])[0]  # and two checksums, of 4 bytes
            event = Event.FromString(records[12 : 12 + size])
            records = records[16 + size :]
            yield from (value.simple_value for value in event.summary.value if value.tag == "input_wait")


if __name__ == "__main__":
    tyro.cli(main)
