"""The decoded texts of a split, and their scores."""

import time
from typing import NamedTuple

from seqlab.config import Search
from seqlab.data.corpus import Corpus
from seqlab.data.records import PreparedData
from seqlab.decoding.lines import decode_lines
from seqlab.decoding.predictions import predict
from seqlab.decoding.requests import Lines
from seqlab.decoding.trained import TrainedModel
from seqlab.metrics.metric import Score
from seqlab.metrics.registry import score
from seqlab.system.progress_bar import progress


class DecodedSplit(NamedTuple):
    """The first examples of a split, decoded, and their scores by metric; empty for a task without metrics."""

    sources: list[str]
    texts: list[str]
    references: list[str]
    scores: dict[str, list[Score]]
    seconds: float


def decode_split(
    trained: TrainedModel, search: Search, data: PreparedData, split: str, count: int, corpus: Corpus | None = None
) -> DecodedSplit:
    """Decodes and scores the first `count` examples of a split. If `corpus` is given, it holds their ids."""
    task = trained.task
    if not task.metrics:
        return DecodedSplit([], [], [], {}, 0.0)
    examples = list(data.read(split, 0, count))
    sources = [readable(example[task.input_columns[0]]) for example in examples]
    references = [trained.codecs[task.answer_column].canonical(example[task.answer_column]) for example in examples]
    begun = time.perf_counter()
    with progress("decoding", count) as advance:
        if task.searches:
            rows = None if corpus is None else [corpus.row(task.input_columns[0], i) for i in range(count)]
            texts = [best[0].text for best in decode_lines(trained, Lines(sources, rows), search, progress=advance)]
        else:
            texts = [best[0].text for best in predict(trained, examples)]
            advance(count)
    seconds = time.perf_counter() - begun
    scores = {metric: score(metric, texts, [references]) for metric in task.metrics}
    return DecodedSplit(sources, texts, references, scores, seconds)


def readable(value: str | bytes) -> str:
    """Returns a source as reports show it."""
    return value if isinstance(value, str) else f"{len(value):,} bytes"
