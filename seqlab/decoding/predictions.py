"""The predictions of tasks without a search, for examples with any columns."""

import json
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from seqlab.codecs.codec import Value, encode_values
from seqlab.data.task import Prediction, Task
from seqlab.data.text_files import read_lines, read_rows
from seqlab.decoding.trained import TrainedModel
from seqlab.decoding.windows import WINDOW, windows_of
from seqlab.system.errors import SeqlabError


class InputExample(NamedTuple):
    """The values of a task's input columns, and the `place` that they were read from, such as "in.txt:3"."""

    place: str
    values: Mapping[str, Value]


def predict(trained: TrainedModel, examples: Sequence[Mapping[str, Value]]) -> list[list[Prediction]]:
    """Returns the predictions for examples, best first, given the values of the task's input columns."""
    columns = trained.task.input_columns
    rows = {name: encode_values([example[name] for example in examples], trained.codecs[name]) for name in columns}
    return predict_rows(trained, rows, len(examples))


def predict_rows(trained: TrainedModel, rows: Mapping[str, Sequence[Any]], count: int) -> list[list[Prediction]]:
    """Returns the predictions for the rows of `count` examples. Raises `SeqlabError` unless each example has one."""
    predictions: Any = trained.task.predict(trained, rows)
    name = type(trained.task).__name__
    if not isinstance(predictions, list) or not all(isinstance(best, list) for best in predictions):
        raise SeqlabError(f"{name}.predict must return a list of predictions for each example")
    if len(predictions) != count or not all(predictions):
        raise SeqlabError(f"{name}.predict returns predictions for {sum(map(bool, predictions))} of {count} examples")
    for prediction in (prediction for best in predictions for prediction in best):
        check_prediction(prediction, name)
    return predictions


def check_prediction(prediction: Any, task: str) -> None:
    """Raises `SeqlabError` unless a prediction has a text, a finite score or None, and details with other names."""
    if not isinstance(prediction, Prediction) or not isinstance(prediction.text, str):
        raise SeqlabError(f"{task}.predict must return Prediction(text, ...) with a text, not {prediction!r:.60}")
    score = prediction.score
    if score is not None and not (isinstance(score, numbers.Real) and math.isfinite(score)):
        raise SeqlabError(f"{task}.predict: a score must be a finite number or None, not {score!r}")
    if reserved := prediction.details.keys() & {"line", "text", "score"}:
        raise SeqlabError(f"{task}.predict: {min(reserved)!r} in details is reserved: choose another name")


def examples_in(task: Task, source: Path | BinaryIO) -> Iterator[InputExample]:
    """Yields the examples in a table (.tsv or .jsonl, whose columns are named as the task's), or in lines of text.
    Raises `SeqlabError` for lines of text if the task reads several columns.
    """
    place = str(source) if isinstance(source, Path) else "standard input"
    if isinstance(source, Path) and (kind := Path(place.removesuffix(".gz")).suffix) in (".tsv", ".jsonl"):
        rows = read_rows(source, {column: column for column in task.input_columns})
        for number, values in enumerate(rows, 2 if kind == ".tsv" else 1):
            yield InputExample(f"{source}:{number}", values)
        return
    column, *more = task.input_columns
    if more:
        columns = ", ".join(map(repr, task.input_columns))
        raise SeqlabError(f"{type(task).__name__} reads the columns {columns}: give them in a .tsv or .jsonl file")
    for number, line in enumerate(read_lines(source), 1):
        text = line.replace(task.separator, "\n") if task.separator else line
        yield InputExample(f"{place}:{number}", {column: text})


def prediction_lines(
    trained: TrainedModel, examples: Iterable[InputExample], count: int, as_json: bool, pause: float | None = None
) -> Iterator[str]:
    """Yields the `count` best predictions of each example. If `count` is 1, a prediction is a line of text, otherwise
    "line ||| text ||| score" with the number of the line from 0; or a line of JSON. `pause` is as in `windows_of`.
    Raises `SeqlabError` with the place of a value that a codec refuses.
    """
    first = 0
    for window in windows_of(examples, pause, WINDOW):
        try:
            results = predict(trained, [example.values for example in window])
        except SeqlabError as error:
            raise refused_example(trained, window) or error from None
        for number, predictions in enumerate(results, first):
            for prediction in predictions[:count]:
                yield format_prediction(number, prediction, count > 1, as_json)
        first += len(window)


def refused_example(trained: TrainedModel, examples: Sequence[InputExample]) -> SeqlabError | None:
    """Returns the error for the first example with a value that a codec refuses, or None."""
    for place, values in examples:
        try:
            for column, value in values.items():
                encode_values([value], trained.codecs[column])
        except SeqlabError as error:
            return SeqlabError(f"{place}: {error}")
    return None


def format_prediction(number: int, prediction: Prediction, several: bool, as_json: bool) -> str:
    text, score, details = prediction
    if as_json:
        values = {"line": number, "text": text, "score": score, **details}
        return json.dumps(values, ensure_ascii=False, default=plain_value)
    line = text.replace("\n", " ")
    return f"{number} ||| {line} ||| {format_score(score)}" if several else line


def plain_value(value: Any) -> Any:
    """Returns a NumPy number or array as plain values."""
    return np.asarray(value).tolist()


def format_score(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
