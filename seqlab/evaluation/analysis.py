"""Why texts are wrong: because search missed what the model likes better, or because the model likes something else.

If a model prefers the reference to the text that was written, P(reference) > P(text), search is at fault; otherwise
the model is (Stahlberg & Byrne 2019, "On NMT search errors and model errors: cat got your tongue?"). What is
preferred is told by log-probability, and by the score that was searched for.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from seqlab.config import Search
from seqlab.data.records import prepare
from seqlab.decoding.decoded_text import DecodedText
from seqlab.decoding.log_probs import longest_side, to_be_forced
from seqlab.decoding.requests import requests_of, warn
from seqlab.decoding.settings import settled
from seqlab.metrics.registry import LOWER_IS_BETTER, score, score_lines
from seqlab.metrics.rouge import words
from seqlab.runs.loading import Run
from seqlab.search import exact
from seqlab.search.forced import force
from seqlab.search.length_penalty import normalized
from seqlab.search.processors import NO_OPTIONS
from seqlab.search.requests import Request, most_tokens
from seqlab.search.searcher import Weights
from seqlab.system.errors import SeqlabError, at_least


class Preference(NamedTuple):
    """A text's and the reference's value, higher is better, and the fault: "none" if they are the same text, "search"
    or "model".
    """

    text: float
    reference: float
    fault: str


class Line(NamedTuple):
    """One example of the split, from 0 on, what was written for it, and what the model prefers."""

    number: int
    source: str
    reference: str
    text: str
    by_log_prob: Preference
    by_score: Preference


class Width(NamedTuple):
    """What a beam of some width writes: the corpus score, that of the best of its n-best lists, and of these texts
    the length, of the references', and the empty ones, in percent; the mean score that was searched for.
    """

    beam: int
    value: float
    oracle: float
    length: float
    empty: float
    searched: float


class Exact(NamedTuple):
    """What exact search finds in a sample, as numbers of lines: those that it decided within its budget of steps,
    those of them for which it found a better text than the widest beam, and in which the best of all is empty.
    """

    lines: int
    budget: int
    decided: int
    better: int
    empty: int


class Analysis(NamedTuple):
    metric: str
    search: dict[str, Any]
    lines: list[Line]
    unreachable: int
    """References that are longer than anything that may be written."""
    widths: list[Width]
    exact: Exact | None


def analyze(
    run: Run,
    split: str,
    data_dir: Path,
    *,
    lines: int = 0,
    beams: Sequence[int] = (),
    exact: int = 0,
    nodes: int = 1000,
) -> Analysis:
    """The analysis of the first `lines` examples of a split, 0 for all; of beams of some widths; of what exact search
    finds for `exact` of them, by `nodes` steps of the model each, that beats the widest. Raises for a run that
    searches for nothing.
    """
    task, search = run.experiment.task, run.experiment.search
    if task.KIND != "generator" or not task.metrics:
        raise SeqlabError(f"{type(task).__name__} writes no texts that search could miss")
    refuse_others(search)
    check_effort(lines, beams, exact, nodes)
    data = prepare(run.experiment.data, data_dir)
    size = data.size(split)
    every = enumerate(data.read(split, 0, min(lines or size, size)))
    examples = [(i, example) for i, example in every if example["source"].strip()]
    if not examples:
        raise SeqlabError(f"split {split} has no sources")
    numbers = [i for i, _ in examples]
    sources, references = ([example[column] for _, example in examples] for column in ("source", "target"))

    numbered = [(i + 1, source) for i, source in zip(numbers, sources, strict=True)]
    requests = requests_of(task, run.model, run.tokenizers, numbered, search, warn)
    options = settled(search, run.tokenizers["target"])[2]
    if exact and (options != NO_OPTIONS or any(request.least > 1 for request in requests)):
        raise SeqlabError(
            f"exact search knows no least lengths and nothing forbidden, as the preset {search.preset} may have: "
            "--exact 0 leaves it out"
        )
    ids = to_be_forced(task, run.tokenizers, sources, references)[1]
    if max(map(longest_side, requests, ids)) > most_tokens(run.model):
        raise SeqlabError(f"a reference has more than the {most_tokens(run.model)} tokens that can be read")
    unreachable = sum(len(answer) > one.limit for answer, one in zip(ids, requests, strict=True))
    written = [one[0] for one in run.write(sources)]
    answers = [[*one.ids] for one in written], ids
    sums = [[float(one.sum()) for one in force(run.model, run.params, requests, some)] for some in answers]
    scores = [normalized_scores(run, some, values) for some, values in zip(answers, sums, strict=True)]
    judged = []
    for k, (i, source, reference, one) in enumerate(zip(numbers, sources, references, written, strict=True)):
        right = one.text.strip() == reference.strip()
        by_log_prob, by_score = (preference(texts[k], wanted[k], right) for texts, wanted in (sums, scores))
        judged.append(Line(i, source, reference, one.text, by_log_prob, by_score))
    metric = task.metrics[0]
    widths, widest = widths_of(run, metric, sources, references, beams)
    found = exactly(run, requests, widest, exact, nodes) if exact and beams else None
    return Analysis(metric, dataclasses.asdict(search), judged, unreachable, widths, found)


def check_effort(lines: int = 0, beams: Sequence[int] = (), exact: int = 0, nodes: int = 1000) -> None:
    """Raises for an effort of `analyze` that there is not."""
    for name, value, least in (("--lines", lines, 0), ("--exact", exact, 0), ("--nodes", nodes, 1)):
        at_least(name, value, least)
    at_least("a beam", min(beams, default=1), 1)


def refuse_others(search: Search) -> None:
    """Raises for a search whose scores are none of the model's alone, or that may not write what references are."""
    usual = Search()
    names = ("sample", "coverage", "no_repeat", "repetition", "forbid", "min_length", "min_ratio", "groups")
    asked = [name for name in names if getattr(search, name) != getattr(usual, name)]
    if asked:
        raise SeqlabError(f"{', '.join(asked)}: no score that a reference has too: analyze without")


def objective(run: Run) -> tuple[str, Weights]:
    """The length rule and the weights of the score that a run searches for."""
    found, _, _, weights = settled(run.experiment.search, run.tokenizers["target"])
    return found.rules.length, weights


def normalized_scores(run: Run, ids: Sequence[Sequence[int]], log_probs: Sequence[float]) -> list[float]:
    """The scores that the run searches for."""
    rule, weights = objective(run)
    sums, lengths = jnp.array(log_probs, jnp.float32), jnp.array([*map(len, ids)], jnp.int32)
    return normalized(sums, lengths, weights.alpha, weights.word_penalty, rule).tolist()


def preference(text: float, reference: float, right: bool) -> Preference:
    return Preference(text, reference, "none" if right else "search" if reference > text else "model")


def faults(lines: Sequence[Line]) -> dict[str, dict[str, int]]:
    """How many lines have each fault, by both measures."""
    measures = {
        "by log-probability": [line.by_log_prob for line in lines],
        "by the score searched for": [line.by_score for line in lines],
    }
    return {
        name: {fault: sum(one.fault == fault for one in some) for fault in ("none", "search", "model")}
        for name, some in measures.items()
    }


def widths_of(
    run: Run, metric: str, sources: Sequence[str], references: Sequence[str], beams: Sequence[int]
) -> tuple[list[Width], list[DecodedText]]:
    """What beams of some widths write; the best texts of the widest."""
    wanted = sum(len(words(line)) for line in references)
    found, best = [], []
    for beam in sorted({*beams}):
        lists = run.write(sources, nbest=beam, beam=beam)
        best = [one[0] for one in lists]
        texts = [one.text for one in best]
        every = [one.text for some in lists for one in some]
        beside = [reference for some, reference in zip(lists, references, strict=True) for _ in some]
        (name, alone), *_ = score_lines(metric, every, [beside]).items()
        values = iter(-alone if name.endswith(LOWER_IS_BETTER) else alone)
        oracle = [some[int(np.argmax([next(values) for _ in some]))].text for some in lists]
        found.append(
            Width(
                beam,
                score(metric, texts, [references])[0].value,
                score(metric, oracle, [references])[0].value,
                100 * sum(len(words(text)) for text in texts) / max(wanted, 1),
                100 * sum(not text.strip() for text in texts) / len(texts),
                float(np.mean([one.score for one in best])),
            )
        )
    return found, best


def exactly(run: Run, requests: Sequence[Request], widest: Sequence[DecodedText], sample: int, budget: int) -> Exact:
    """Exact search for a sample of the sentences, evenly spread, which has to beat the widest beam."""
    rule, weights = objective(run)
    chosen = np.unique(np.linspace(0, len(requests) - 1, min(sample, len(requests))).astype(int))
    found = exact.exact(
        run.model,
        run.params,
        [requests[i] for i in chosen],
        eos=run.tokenizers["target"].eos,
        alpha=weights.alpha,
        word_penalty=weights.word_penalty,
        length=rule,
        incumbents=[widest[i].score for i in chosen],
        budget=budget,
    )
    decided = [(one.ids or widest[i].ids, bool(one.ids)) for i, one in zip(chosen, found, strict=True) if one.decided]
    return Exact(
        len(chosen),
        budget,
        len(decided),
        sum(better for _, better in decided),
        sum(len(ids) == 1 for ids, _ in decided),
    )


def shown(analysis: Analysis) -> str:
    """For a terminal."""
    count = len(analysis.lines)
    lines = [
        f"{count:,} lines, beam {analysis.search['beam']}",
        "",
        f"{'':26} {'by log-probability':>20} {'by score':>20}",
    ]
    names = {"none": "as the reference", "search": "search error", "model": "model error"}
    for fault, name in names.items():
        counts = [some[fault] for some in faults(analysis.lines).values()]
        lines.append(f"{name:26}" + "".join(f" {n:12,} {100 * n / count:5.1f} %" for n in counts))
    lines.append(f"references longer than what may be written: {analysis.unreachable}")
    lines += [
        "",
        f"{'beam':>6} {analysis.metric:>10} {'oracle':>10} {'length %':>10} {'empty %':>10} {'mean score':>12}",
    ]
    lines += [
        f"{w.beam:6} {w.value:10.2f} {w.oracle:10.2f} {w.length:10.1f} {w.empty:10.1f} {w.searched:12.4f}"
        for w in analysis.widths
    ]
    if analysis.exact is not None:
        e = analysis.exact
        lines += [
            "",
            f"exact search, {e.lines} lines, at most {e.budget:,} steps of the model each: {e.decided} decided, "
            f"{100 * (e.lines - e.decided) / e.lines:.1f} % not;",
            f"of those decided {e.better} have a better text than the widest beam's; of {e.empty} the best is empty",
        ]
    return "\n".join(lines)
