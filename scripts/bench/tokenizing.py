"""How fast a data set is prepared and tokenized, beside SentencePiece alone on the same lines and all cores.

    python scripts/bench/tokenizing.py debian_descriptions/synopsis

Writes nothing that stays but the data set's prepared form below data/.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from seqlab import catalogue
from seqlab.config import Text
from seqlab.datasets import prepare
from seqlab.text import tokenize, train_tokenizer


class Again:
    """The same examples, to be prepared once more without what it takes to get them."""

    def __init__(self, examples):
        self.examples = examples

    def key(self) -> str:
        return "again"

    def splits(self):
        return {"train": iter(self.examples)}


def main() -> None:
    data = prepare(catalogue.dataset(sys.argv[1]), Path("data"))
    examples = list(data.read("train"))
    texts = [text for example in examples for text in example.values()]
    lines = [line for text in texts for line in text.split("\n")]
    size = sum(len(line.encode()) for line in lines) / 1e6
    print(f"{len(examples):,} examples, {len(lines):,} lines, {size:.1f} MB, {os.cpu_count()} cores")
    tokenizer = train_tokenizer(texts, Text())
    with tempfile.TemporaryDirectory() as name:
        for _ in range(3):
            begun = time.perf_counter()
            tokenizer.processor.encode(lines, num_threads=os.cpu_count())
            alone = time.perf_counter() - begun
            folder = Path(tempfile.mkdtemp(dir=name))
            begun = time.perf_counter()
            again = prepare(Again(examples), folder)
            prepared = time.perf_counter() - begun
            begun = time.perf_counter()
            columns = dict.fromkeys(examples[0], tokenizer)
            tokenize(again.read("train"), again.size("train"), "again", columns, folder)
            tokenized = time.perf_counter() - begun
            print(f"SentencePiece alone {alone:.2f} s, preparing {prepared:.2f} s, tokenizing {tokenized:.2f} s")


if __name__ == "__main__":
    main()
