"""The decoded texts of a split, and their scores."""

import time
from typing import NamedTuple

from seqlab.config import Search
from seqlab.data.corpus import Corpus
from seqlab.data.records import PreparedData
from seqlab.decoding.lines import decode_lines
from seqlab.decoding.requests import Lines
from seqlab.decoding.trained import TrainedModel
from seqlab.metrics.metric import Score
from seqlab.metrics.registry import score
from seqlab.system.progress_bar import progress


class DecodedSplit(NamedTuple):
    """The first examples of a split, decoded, and the scores of each metric; empty for a task without metrics."""

    sources: list[str]
    texts: list[str]
    references: list[str]
    scores: dict[str, list[Score]]
    seconds: float


def decode_split(
    trained: TrainedModel, search: Search, data: PreparedData, split: str, count: int, corpus: Corpus | None = None
) -> DecodedSplit:
    """Decodes and scores the first `count` examples of a split, whose ids are in `corpus`, if that is given."""
    task = trained.task
    if not task.metrics:
        return DecodedSplit([], [], [], {}, 0.0)
    examples = list(data.read(split, 0, count))
    answer = "label" if "label" in task.columns else "target"
    sources, references = ([example[column] for example in examples] for column in ("source", answer))
    references = [trained.codecs[answer].canonical(reference) for reference in references]
    lines = Lines(sources, None if corpus is None else [corpus.row("source", i) for i in range(count)])
    begun = time.perf_counter()
    with progress("decoding", count) as advance:
        decoded = decode_lines(trained, lines, search, progress=advance)
    seconds = time.perf_counter() - begun
    texts = [best[0].text for best in decoded]
    scores = {metric: score(metric, texts, [references]) for metric in task.metrics}
    return DecodedSplit(sources, texts, references, scores, seconds)
