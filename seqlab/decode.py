"""A trained run, ready to write and to be judged."""

import dataclasses
import itertools
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqlab import catalogue, checkpoint
from seqlab.config import Experiment, Search
from seqlab.datasets import Prepared, prepare
from seqlab.errors import SeqlabError
from seqlab.files import check_new, folder_made_whole
from seqlab.lines import NOTHING_TOLD, Told, Written, decode_lines, is_causal
from seqlab.metrics import Score, count, doubts
from seqlab.metrics.significance import compare
from seqlab.progress import progress
from seqlab.search.ensemble import MEANS, Ensemble
from seqlab.search.requests import most_tokens
from seqlab.tasks import blank_batch
from seqlab.text import RECORD, Corpus, Tokenizers, load_tokenizers, save_tokenizers
from seqlab.train import init_params
from seqlab.types import Params
from seqlab.untrusted import inside
from seqlab.validate import Decoded, check_search, decode_split, loss_of_split, perplexity, tokenize_split

CHECKED = 8  # examples that causality is tried on


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

    def searching(self, **changes: Any) -> "Run":
        """The run, whose own search has what is not None in `changes`."""
        return self._replace(experiment=dataclasses.replace(self.experiment, search=self.search(**changes)))


def load(run: str | Path, which: str = "best", dtype: str | None = None) -> Run:
    """The run in a folder, at its checkpoint "best", "last" or of a step; with another `dtype` of its model's, if one
    is given. Raises `SeqlabError` if there is none.
    """
    folder = Path(run)
    experiment = catalogue.load_experiment(folder / "experiment.json")
    step = checkpoint.choose_step(folder, which)
    tokenizers = load_tokenizers(folder, experiment.task.columns)
    check_run(experiment, tokenizers, folder)
    wanted = parameter_shapes(experiment, folder)

    def check(declared: Any) -> None:
        for name in ("params", "average") if "average" in declared else ("params",):
            checkpoint.check_shapes(declared.get(name), wanted, folder)

    params = checkpoint.parameters_of(checkpoint.restore(folder, step, check=check))
    if dtype is not None:
        if not hasattr(experiment.model, "dtype"):
            raise SeqlabError(f"{type(experiment.model).__name__} has no dtype that could be another")
        experiment = dataclasses.replace(experiment, model=experiment.model.clone(dtype=dtype))
    return Run(folder, step, experiment, tokenizers, params, experiment.model)


def check_run(experiment: Experiment, tokenizers: Tokenizers, folder: Path) -> None:
    """Raises where the parts of a run do not go together."""
    try:
        catalogue.check_parts(experiment)
        check_search(experiment.search)
        resolved = catalogue.resolve(experiment, tokenizers)
    except SeqlabError as error:
        raise SeqlabError(f"{folder}: {error}") from None
    if resolved != experiment:
        raise SeqlabError(f"{folder}: its experiment leaves open how large the vocabulary is")


def parameter_shapes(experiment: Experiment, folder: Path) -> Params:
    """The shapes of the parameters that an experiment's model has. Raises for a model that cannot be built."""
    try:
        return jax.eval_shape(lambda: init_params(experiment.model, 0, blank_batch(experiment.task)))
    except Exception as error:  # whatever layers make of sizes that nobody would choose
        reason = str(error).partition("\n")[0]
        raise SeqlabError(f"{folder}: the model of its experiment cannot be built: {reason}") from None


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


class Evaluation(NamedTuple):
    """Scores of a split, what they judge, the search that wrote it, the data, the splits that are no longer what they
    were when the run was trained, and what should be asked of the texts.
    """

    scores: list[Score]
    decoded: Decoded
    search: Search
    data: Prepared
    changed: list[str]
    doubts: list[str]


def evaluate(run: Run, split: str, data_dir: Path, **search: Any) -> Evaluation:
    """Perplexity of a split, the task's metrics over its decoded texts, and over those of the task's baseline. Raises
    for a generator that sees what comes next, of which there is no perplexity.
    """
    run = run.searching(**search)
    experiment = run.experiment
    data = prepare(experiment.data, data_dir)
    corpus = tokenize_split(data, split, run.tokenizers, data_dir)
    scores = likelihood_scores(run, data, split, corpus)
    decoded = decode_split(experiment, run.params, run.tokenizers, data, split, data.size(split))
    scores += itertools.chain.from_iterable(decoded.scores.values())
    if decoded.texts and hasattr(experiment.task, "baseline"):
        name, answers = experiment.task.baseline(decoded.sources, data.read("train"))
        scores += baseline_scores(name, answers, decoded)
    changed = data.changed_since(inside(run.folder, RECORD))
    asked = []
    if decoded.texts:
        meant = getattr(experiment.task, "tokenized", False)
        asked = doubts(experiment.task.metrics, decoded.texts, [decoded.references], meant)
    return Evaluation(scores, decoded, experiment.search, data, changed, asked)


def likelihood_scores(run: Run, data: Prepared, split: str, corpus: Corpus) -> list[Score]:
    """What the probabilities of a split's answers come to: perplexity by token, and for texts, so that other
    tokenizers can be compared, by word and in bits by character. Of a line, its end counts as a token, a word and a
    character. Nothing is left out but what is longer than the model can read.
    """
    task, model = run.experiment.task, run.experiment.model
    generates = task.KIND == "generator"
    if generates:
        some = list(data.read(split, 0, CHECKED))
        sources, targets = ([example.get(column, "") for example in some] for column in ("source", "target"))
        if not is_causal(task, model, run.params, run.tokenizers, sources, targets):
            raise SeqlabError(
                f"{type(model).__name__} sees what comes next: there is no perplexity (seqlab check {run.folder})"
            )
    experiment = run.experiment
    if task.plan(corpus, experiment.batching).left_out:
        longest = max(int(corpus.lengths(column).max()) for column in corpus.ids) + 1
        limits = {"max_length": min(longest, most_tokens(model)), "max_ratio": math.inf}
        experiment = dataclasses.replace(experiment, batching=dataclasses.replace(experiment.batching, **limits))
    values, units, left_out = loss_of_split(experiment, run.tokenizers, corpus)(run.params)
    unit = "token" if generates or task.KIND == "tagger" else "example"
    signature = f"unit:{unit}|{unit}s:{units}|left-out:{left_out}"
    names = ("loss" if task.KIND == "tagger" else "perplexity", "accuracy")
    scores = [Score(n, values[n], signature) for n in names if n in values and n not in task.metrics]
    if generates and not left_out:
        texts = [example["target"] for example in data.read(split)]
        words, characters = (sum(map(len, some)) + len(texts) for some in (map(str.split, texts), texts))
        nats = values["loss"] * units
        scores += [
            Score("perplexity by word", perplexity(nats / words), f"unit:word|words:{words}"),
            Score("bits by character", nats / math.log(2) / characters, f"unit:character|characters:{characters}"),
        ]
    return scores


def baseline_scores(name: str, answers: list[str], decoded: Decoded) -> Iterator[Score]:
    """What trivial answers score, and the p-value of being as good as they are, by approximate randomization."""
    for metric in decoded.scores:
        theirs, ours = (count(metric, texts, [decoded.references]) for texts in (answers, decoded.texts))
        tested = compare([[theirs], [ours]])
        for label, value, signature in theirs.scores():
            yield Score(f"{label} ({name})", value, f"{signature}|p:{tested[label][1].randomization:.4f}")


def average(run: Path, last: int, out: Path) -> list[int]:
    """Writes a run whose only checkpoint has the mean parameters of the last `last` ones of `run`; their steps.

    It is there to decode with: its optimizer state is gone. Raises `SeqlabError` if there are not that many.
    """
    experiment = catalogue.load_experiment(run / "experiment.json")
    check_new(out)
    if last > experiment.checkpoints.last:
        kept = experiment.checkpoints.last
        raise SeqlabError(f"{run} keeps its {kept} newest checkpoints: train with --checkpoints.last {last}")
    params, steps = checkpoint.average(run, last)
    with folder_made_whole(out) as part:
        save_tokenizers(load_tokenizers(run, experiment.task.columns), part)
        catalogue.save_experiment(experiment, part / "experiment.json")
        shutil.copyfile(inside(run, RECORD), part / RECORD)
        averaged = {"params": params, "step": np.int32(steps[-1])}
        checkpoint.save_alone(part, averaged, steps[-1], {"averaged": steps})
    return steps
