"""A trained run, ready to write and to be judged."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqlab import catalogue, checkpoint
from seqlab.config import Experiment, Search
from seqlab.datasets import prepare
from seqlab.errors import SeqlabError
from seqlab.files import folder_made_whole
from seqlab.metrics import Score
from seqlab.progress import progress
from seqlab.tasks import Written, decode_lines
from seqlab.text import Tokenizers, load_tokenizers, save_tokenizers
from seqlab.types import Params
from seqlab.validate import Decoded, check_search, decode_split, loss_of_split, tokenize_split

WINDOW = 10_000  # lines read ahead and sorted by length


class Run(NamedTuple):
    """An experiment with the parameters of one of its checkpoints."""

    folder: Path
    step: int
    experiment: Experiment
    tokenizers: Tokenizers
    params: Params

    def translate(self, lines: Sequence[str], **search: Any) -> list[str]:
        """The best text for each of a list of lines; `search` overrides fields of `config.Search`, such as beam=5.

        For a language model a line is a prompt, and the text begins with it.
        """
        return [written[0].text for written in self.write(lines, **search)]

    def write(self, lines: Sequence[str], nbest: int = 1, **search: Any) -> list[list[Written]]:
        """The `nbest` best texts for each line with their scores, best first."""
        if isinstance(lines, str):
            raise SeqlabError("lines are a list of strings, not one string")
        experiment, found = self.experiment, self.search(**search)
        with progress("decoding", len(lines)) as advance:
            return decode_lines(
                experiment.task,
                experiment.model,
                self.params,
                self.tokenizers,
                lines,
                found,
                wanted=nbest,
                progress=advance,
            )

    def search(self, **changes: Any) -> Search:
        """The experiment's search with what is not None in `changes`."""
        given = {name: value for name, value in changes.items() if value is not None}
        search = dataclasses.replace(self.experiment.search, **given)
        check_search(search)
        return search


def load(run: str | Path, which: str = "best") -> Run:
    """The run in a folder, at its checkpoint "best", "last" or of a step. Raises `SeqlabError` if there is none."""
    folder = Path(run)
    experiment = catalogue.load_experiment(folder / "experiment.json")
    step = checkpoint.choose_step(folder, which)
    tokenizers = load_tokenizers(folder, experiment.task.columns)
    return Run(folder, step, experiment, tokenizers, checkpoint.restore(folder, step)["params"])


def decode_stream(run: Run, lines: Iterable[str], nbest: int, scores: bool, **search: Any) -> Iterator[str]:
    """Output lines for a stream of input lines, in order; memory is bounded by a window of lines.

    A text a line, behind it " ||| score" if `scores`; or `nbest` lines "line ||| text ||| score" each, lines
    counted from 0.
    """
    stream = iter(lines)
    number = 0
    while window := list(itertools.islice(stream, WINDOW)):
        for written in run.write(window, max(nbest, 1), **search):
            if nbest:
                missing = [Written("", -math.inf, -math.inf)] * (nbest - len(written))
                for text, value, _ in [*written, *missing]:
                    yield f"{number} ||| {text} ||| {value:.4f}"
            elif scores:
                yield f"{written[0].text} ||| {written[0].score:.4f}"
            else:
                yield written[0].text
            number += 1


class Evaluation(NamedTuple):
    """Scores of a split, what they judge, and the search that wrote it."""

    scores: list[Score]
    decoded: Decoded
    search: Search


def evaluate(run: Run, split: str, data_dir: Path, **search: Any) -> Evaluation:
    """Perplexity and accuracy of a split, and the task's metrics over its decoded texts."""
    found = run.search(**search)
    experiment = dataclasses.replace(run.experiment, search=found)
    data = prepare(experiment.data, data_dir)
    corpus = tokenize_split(data, split, run.tokenizers, data_dir)
    values, tokens, left_out = loss_of_split(experiment, run.tokenizers, corpus)(run.params)
    signature = f"unit:token|tokens:{tokens}|left-out:{left_out}"
    decoded = decode_split(experiment, run.params, run.tokenizers, data, split, data.size(split))
    scores = [
        Score("perplexity", values["perplexity"], signature),
        Score("accuracy", 100 * values["accuracy"], signature),
        *itertools.chain.from_iterable(decoded.scores.values()),
    ]
    return Evaluation(scores, decoded, found)


def average(run: Path, last: int, out: Path) -> list[int]:
    """Writes a run whose only checkpoint has the mean parameters of the last `last` ones of `run`; their steps.

    It is there to decode with: its optimizer state is gone. Raises `SeqlabError` if there are not that many.
    """
    experiment = catalogue.load_experiment(run / "experiment.json")
    if out.exists():
        raise SeqlabError(f"{out} exists: choose another --out")
    params, steps = checkpoint.average(run, last)
    with folder_made_whole(out) as part:
        save_tokenizers(load_tokenizers(run, experiment.task.columns), part)
        catalogue.save_experiment(experiment, part / "experiment.json")
        saver = checkpoint.Saver(part, 1)
        saver.save({"params": params, "step": np.int32(steps[-1])}, steps[-1], {"averaged": steps})
        saver.close()
    return steps
