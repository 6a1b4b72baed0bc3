"""A trained run, ready to write and to be judged."""

import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqlab import catalogue, checkpoint
from seqlab.config import Experiment, Search
from seqlab.datasets import Prepared, prepare
from seqlab.errors import SeqlabError
from seqlab.files import folder_made_whole
from seqlab.lines import NOTHING_TOLD, Told, Written, decode_lines, forced_lines, word_links
from seqlab.metrics import BY_LINE, Score, score
from seqlab.metrics.significance import SAMPLES, paired_bootstrap
from seqlab.progress import progress
from seqlab.search.ensemble import MEANS, Ensemble
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
    model: Any
    """The experiment's, or several as one."""

    def translate(self, lines: Sequence[str], **search: Any) -> list[str]:
        """The best text for each of a list of lines; `search` overrides fields of `config.Search`, such as beam=5.

        For a language model a line is a prompt, and the text begins with it.
        """
        return [written[0].text for written in self.write(lines, **search)]

    def write(
        self,
        lines: Sequence[str],
        nbest: int = 1,
        first: int = 1,
        told: Told = NOTHING_TOLD,
        aligned: bool = False,
        **search: Any,
    ) -> list[list[Written]]:
        """The `nbest` best texts for each line with their scores, best first; errors count lines from `first`. What
        each line is `told`: texts to begin with, phrases that must be in it. With alignments if `aligned`.
        """
        if isinstance(lines, str):
            raise SeqlabError("lines are a list of strings, not one string")
        found = self.search(**search)
        with progress("decoding", len(lines)) as advance:
            return decode_lines(
                self.experiment.task,
                self.model,
                self.params,
                self.tokenizers,
                lines,
                found,
                wanted=nbest,
                first=first,
                told=told,
                aligned=aligned,
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
    return Run(folder, step, experiment, tokenizers, checkpoint.restore(folder, step)["params"], experiment.model)


def together(runs: Sequence[Run], mean: str = "probabilities", lm: Run | None = None, weight: float = 0.0) -> Run:
    """Some runs that write as one, the first one's task and search; and a language model that has its say with
    `weight`. Raises for runs that do not write the same tokens.
    """
    first, *others = runs
    if mean not in MEANS:
        raise SeqlabError(f"the mean of an ensemble is one of {', '.join(MEANS)}, not {mean!r}")
    for run in (*others, *([lm] if lm else [])):
        if run.tokenizers.get("target") != first.tokenizers.get("target"):
            raise SeqlabError(
                f"{run.folder} has another target tokenizer than {first.folder}: train it with --tokenizer"
            )
    for run in others:
        if run.experiment.task != first.experiment.task or run.tokenizers != first.tokenizers:
            raise SeqlabError(f"{run.folder} reads or writes another way than {first.folder}: no ensemble")
    if lm is not None and ("source" in lm.experiment.task.columns or lm.experiment.task.KIND != "generator"):
        raise SeqlabError(f"{lm.folder} is no language model")
    if not 0 <= weight < math.inf:
        raise SeqlabError(f"the weight of a language model is 0 or more, not {weight}")
    model = Ensemble(tuple(run.model for run in runs), mean, lm and lm.model, weight)
    return first._replace(model=model, params=tuple(run.params for run in (*runs, *([lm] if lm else []))))


def sources_in(run: Run, lines: Iterable[str]) -> Iterator[str]:
    """Lines as sources: where the task names a separator, it stands for the newlines of a source."""
    separator = getattr(run.experiment.task, "separator", None)
    return (line.replace(separator, "\n") for line in lines) if separator else iter(lines)


class Format(NamedTuple):
    """How decoded texts are written: a text a line, or `nbest` lines "line ||| text ||| score" each, lines counted
    from 0; " ||| score" behind a text if `scores`; alignments "pharaoh", " ||| i-j ..." behind it, or "json", a line
    an object of all that is known.
    """

    nbest: int = 0
    scores: bool = False
    alignments: str | None = None

    def line(self, number: int, one: Written) -> str:
        text = one.text.replace("\n", " ")
        if self.alignments == "json":
            known = {"line": number, "text": text, "score": one.score, "log_prob": one.log_prob}
            if one.alignment is not None:
                source, target, best, shares = one.alignment
                links = [[i, j, round(share, 4)] for j, (i, share) in enumerate(zip(best, shares, strict=True))]
                known |= {"source": source, "target": target, "alignment": links}
            return json.dumps(known, ensure_ascii=False)
        parts = [str(number), text] if self.nbest else [text]
        if self.nbest or self.scores:
            parts.append(f"{one.score:.4f}")
        if self.alignments:
            links = word_links(one.alignment) if one.alignment is not None else []
            parts.append(" ".join(f"{i}-{j}" for i, j in links))
        return " ||| ".join(parts)


PLAIN = Format()


def decode_stream(
    run: Run,
    lines: Iterable[str],
    form: Format = PLAIN,
    prefixes: Iterable[str] | None = None,
    phrases: Iterable[str] | None = None,
    **search: Any,
) -> Iterator[str]:
    """Output lines for a stream of input lines, in order; memory is bounded by a window of lines. `prefixes` are a
    text a line, `phrases` some a line with tabs between them. Raises where these are more or fewer than the lines.
    """
    beside = [name for name, given in (("prefixes", prefixes), ("constraints", phrases)) if given is not None]
    streams = [sources_in(run, lines), *(given for given in (prefixes, phrases) if given is not None)]
    rows, number = itertools.zip_longest(*streams), 0
    while window := list(itertools.islice(rows, WINDOW)):
        columns = dict(zip(("source", *beside), zip(*window, strict=True), strict=True))
        for name, column in columns.items():
            if None in column:
                raise SeqlabError(
                    f"there are {'more' if name == 'source' else 'fewer'} {' and '.join(beside)} than lines of input"
                )
        told = Told(
            columns.get("prefixes", ()),
            [[part for part in line.split("\t") if part.strip()] for line in columns.get("constraints", ())],
        )
        aligned = form.alignments is not None
        for written in run.write(columns["source"], max(form.nbest, 1), number + 1, told, aligned, **search):
            missing = [Written("", -math.inf, -math.inf)] * (form.nbest - len(written))
            for one in [*written, *missing]:
                yield form.line(number, one)
            number += 1


def force_stream(run: Run, sources: Iterable[str] | None, targets: Iterable[str], tokens: bool) -> Iterator[str]:
    """A line for each target: its log-probability given its source; if `tokens`, then " ||| token value" for each.

    Raises `SeqlabError` where there are not as many sources as targets; a language model has none.
    """
    task, tokenizers = run.experiment.task, run.tokenizers
    if ("source" in task.columns) != (sources is not None):
        raise SeqlabError(
            f"{type(task).__name__} has {'no source' if sources is not None else 'a source: give --input'}"
        )
    given = itertools.repeat("") if sources is None else sources_in(run, sources)
    pairs = zip(given, targets, strict=False) if sources is None else itertools.zip_longest(given, targets)
    number = 1
    while window := list(itertools.islice(pairs, WINDOW)):
        if any(None in pair for pair in window):
            raise SeqlabError("there are not as many sources as targets")
        columns = zip(*window, strict=True)
        found = forced_lines(task, run.experiment.model, run.params, tokenizers, *columns, first=number)
        number += len(window)
        for ids, log_probs in found:
            parts = [f"{log_probs.sum():.4f}"]
            if tokens:
                names = map(tokenizers["target"].piece, ids)
                parts += [f"{name} {value:.4f}" for name, value in zip(names, log_probs, strict=True)]
            yield " ||| ".join(parts)


class Evaluation(NamedTuple):
    """Scores of a split, what they judge, the search that wrote it, the data, and the splits that are no longer what
    they were when the run was trained.
    """

    scores: list[Score]
    decoded: Decoded
    search: Search
    data: Prepared
    changed: list[str]


def evaluate(run: Run, split: str, data_dir: Path, **search: Any) -> Evaluation:
    """Perplexity of a split, the task's metrics over its decoded texts, and over those of the task's baseline."""
    found = run.search(**search)
    experiment = dataclasses.replace(run.experiment, search=found)
    data = prepare(experiment.data, data_dir)
    corpus = tokenize_split(data, split, run.tokenizers, data_dir)
    values, units, left_out = loss_of_split(experiment, run.tokenizers, corpus)(run.params)
    unit = "token" if experiment.task.KIND in ("generator", "tagger") else "example"
    signature = f"unit:{unit}|{unit}s:{units}|left-out:{left_out}"
    decoded = decode_split(experiment, run.params, run.tokenizers, data, split, data.size(split))
    names = ("loss" if experiment.task.KIND == "tagger" else "perplexity", "accuracy")
    judged = [name for name in names if name in values and name not in experiment.task.metrics]
    scores = [Score(name, values[name], signature) for name in judged]
    scores += itertools.chain.from_iterable(decoded.scores.values())
    if decoded.texts and hasattr(experiment.task, "baseline"):
        name, answers = experiment.task.baseline(decoded.sources, data.read("train"))
        scores += baseline_scores(name, answers, decoded)
    trained_on = json.loads((run.folder / "data.json").read_text())
    changed = [name for name in {**trained_on, **data.hashes} if trained_on.get(name) != data.hashes.get(name)]
    return Evaluation(scores, decoded, found, data, changed)


def baseline_scores(name: str, answers: list[str], decoded: Decoded) -> Iterator[Score]:
    """What trivial answers score, and for means over lines the p-value of being ahead of them."""
    for metric in decoded.scores:
        by_line = BY_LINE.get(metric)
        lines = [by_line(texts, [decoded.references]) for texts in (decoded.texts, answers)] if by_line else None
        for label, value, signature in score(metric, answers, [decoded.references]):
            if lines is not None:
                p = paired_bootstrap(lines[0][label], lines[1][label])
                signature += f"|bootstrap:{SAMPLES}|p:{p:.4f}"
            yield Score(f"{label} ({name})", value, signature)


def average(run: Path, last: int, out: Path) -> list[int]:
    """Writes a run whose only checkpoint has the mean parameters of the last `last` ones of `run`; their steps.

    It is there to decode with: its optimizer state is gone. Raises `SeqlabError` if there are not that many.
    """
    experiment = catalogue.load_experiment(run / "experiment.json")
    if out.exists():
        raise SeqlabError(f"{out} exists: choose another --out")
    if last > experiment.checkpoints.last:
        kept = experiment.checkpoints.last
        raise SeqlabError(f"{run} keeps its {kept} newest checkpoints: train with --checkpoints.last {last}")
    params, steps = checkpoint.average(run, last)
    with folder_made_whole(out) as part:
        save_tokenizers(load_tokenizers(run, experiment.task.columns), part)
        catalogue.save_experiment(experiment, part / "experiment.json")
        shutil.copyfile(run / "data.json", part / "data.json")
        saver = checkpoint.Saver(part, 1)
        saver.save({"params": params, "step": np.int32(steps[-1])}, steps[-1], {"averaged": steps})
        saver.close()
    return steps
