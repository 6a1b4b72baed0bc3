"""The predictions of tasks that do not search, for examples of any columns."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from seqlab.codecs.codec import Value
from seqlab.data.task import Prediction, Task
from seqlab.data.text_files import read_lines, read_table
from seqlab.decoding.trained import TrainedModel
from seqlab.system.errors import SeqlabError

WINDOW = 1000  # examples read ahead


def predict(trained: TrainedModel, examples: Sequence[Mapping[str, Value]]) -> list[list[Prediction]]:
    """The predictions for examples, best first, given the values of the task's input columns."""
    task = trained.task
    rows = {
        column: trained.codecs[column].encode([example[column] for example in examples])
        for column in task.input_columns
    }
    return task.predict(trained, rows)


def examples_in(task: Task, source: Path | BinaryIO) -> Iterator[Mapping[str, str]]:
    """The input columns of the examples in a table (.tsv or .jsonl, its columns called as the task's), or in lines of
    text. Raises `SeqlabError` for lines of text where the task reads several columns.
    """
    name = source.name.removesuffix(".gz") if isinstance(source, Path) else ""
    if isinstance(source, Path) and name.endswith((".tsv", ".jsonl")):
        yield from read_table(source, {column: column for column in task.input_columns})
        return
    column, *more = task.input_columns
    if more:
        columns = ", ".join(task.input_columns)
        raise SeqlabError(f"{type(task).__name__} reads the columns {columns}: give them in a .tsv or .jsonl file")
    for line in read_lines(source):
        yield {column: line.replace(task.separator, "\n") if task.separator else line}


def prediction_lines(
    trained: TrainedModel, examples: Iterable[Mapping[str, Value]], count: int, as_json: bool
) -> Iterator[str]:
    """Yields the `count` best predictions of each example: a line of text if `count` is 1, otherwise lines
    "line ||| text ||| score", numbered from 0; or lines of JSON.
    """
    remaining, number = iter(examples), 0
    while window := list(islice(remaining, WINDOW)):
        for predictions in predict(trained, window):
            if not predictions:
                raise SeqlabError(f"{type(trained.task).__name__} gives no prediction for example {number + 1}")
            for prediction in predictions[:count]:
                yield format_prediction(number, prediction, count > 1, as_json)
            number += 1


def format_prediction(number: int, prediction: Prediction, several: bool, as_json: bool) -> str:
    text, score, details = prediction
    if as_json:
        return json.dumps({"line": number, "text": text, "score": score, **details}, ensure_ascii=False)
    line = text.replace("\n", " ")
    return f"{number} ||| {line} ||| {format_score(score)}" if several else line


def format_score(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
