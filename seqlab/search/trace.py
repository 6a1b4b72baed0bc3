"""The trace of a beam search for one request: which hypotheses stayed in the beam and finished at each step, and
their tree.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqlab.search.beam_state import Beam
from seqlab.search.ensemble import Ensemble
from seqlab.search.generate import Result, check_requests
from seqlab.search.hypotheses import Hypotheses
from seqlab.search.length_penalty import normalized_score
from seqlab.search.processors import NEVER
from seqlab.search.requests import Request, collate, shapes
from seqlab.search.searcher import make_mesh, make_searcher
from seqlab.search.settings import ScoreWeights, SearchSettings
from seqlab.types import Generator, Params


class Hypothesis(NamedTuple):
    """Tokens, their summed log-probability, and the score for this number of tokens; for a finished hypothesis, its
    final score.
    """

    tokens: list[int]
    log_prob: float
    score: float


class TraceStep(NamedTuple):
    """The hypotheses in the beam after step n, each of n tokens, and the stored finished hypotheses of n tokens."""

    live: list[Hypothesis]
    finished: list[Hypothesis]


class Node(NamedTuple):
    """A prefix that was in the beam or finished. `log_prob` belongs to the last token, `sum` and `score` to the whole
    prefix.

    The root, with the prompt's last token, has parent -1 and depth 0. `last` is the last step after which the prefix
    or an extension of it was in the beam or finished; the next step has pruned it. `best` is true if the best result
    begins with the prefix.
    """

    token: int
    parent: int
    depth: int
    log_prob: float
    sum: float
    score: float
    last: int
    finished: bool
    best: bool


class Trace(NamedTuple):
    """Plain data: the steps in order, the tree with parents before their children, and the best result (None if no
    hypothesis has finished).
    """

    steps: list[TraceStep]
    nodes: list[Node]
    best: Result | None


def trace(model: Generator | Ensemble, params: Params, request: Request, settings: SearchSettings) -> Trace:
    """Returns the steps of `generate` with the same arguments. Greedy search is a beam of one that stops at its first
    end.
    """
    check_requests(model, [request], settings)
    static, weights = settings.static._replace(nbest=1, sampling=False), settings.weights
    if static.greedy:
        static = static._replace(greedy=False, rules=dataclasses.replace(static.rules, stop="first"))
    device = jax.local_devices()[:1]
    params, searcher = jax.device_put(params, device[0]), make_searcher(model, static, make_mesh(device))
    ((shape, _),) = shapes([request], model).items()
    rows = searcher.begin(params, collate([request], 1, shape), length=shape.text)
    span = {"prompt_end": shape.prompt - 1, "max_length": shape.text}
    steps: list[TraceStep] = []
    while len(steps) < shape.text and not rows.search_state.done.all():
        n, unfinished = len(steps) + 1, [not beam.done[0] for beam in rows.search_state.beams]
        rows = searcher.advance(params, rows, n - 1, n, weights, 0, **span)
        beams = [beam for beam, searched in zip(rows.search_state.beams, unfinished, strict=True) if searched]
        steps.append(step_of(beams, n, weights, static.rules.length_penalty))
    best = next(iter(list_hypotheses(searcher.results(rows))), None)
    nodes = build_tree(steps, request.prompt[-1], best.tokens if best else [])
    return Trace(steps, nodes, best and Result(best.tokens, best.score, best.log_prob))


def step_of(beams: Sequence[Beam], n: int, weights: ScoreWeights, rule: str) -> TraceStep:
    """Returns the hypotheses of n tokens in the groups of a beam that were not done before."""
    live, ended = [], []
    for beam in beams:
        lengths = jnp.full(beam.log_probs.shape, n)
        scores = normalized_score(beam.log_probs, lengths, weights.alpha, weights.word_penalty, rule)
        live += list_hypotheses(Hypotheses(beam.tokens, lengths, scores, beam.log_probs))
        ended += [hypothesis for hypothesis in list_hypotheses(beam.finished) if len(hypothesis.tokens) == n]
    return TraceStep(live, ended)


def list_hypotheses(hypotheses: Hypotheses) -> list[Hypothesis]:
    """Returns the hypotheses of the only sentence that exist."""
    fields = (hypotheses.tokens, hypotheses.lengths, hypotheses.log_probs, hypotheses.scores)
    rows = zip(*(field[0].tolist() for field in fields), strict=True)
    return [Hypothesis(tokens[:n], log_prob, score) for tokens, n, log_prob, score in rows if log_prob > NEVER / 2]


def build_tree(steps: Sequence[TraceStep], root: int, best: Sequence[int]) -> list[Node]:
    """Returns all prefixes of the steps' hypotheses, parents first, under a root with the token `root`."""
    by_prefix: dict[tuple[int, ...], Hypothesis] = {(): Hypothesis([], 0.0, 0.0)}
    last: dict[tuple[int, ...], int] = {(): 0}
    ended: set[tuple[int, ...]] = set()
    for n, step in enumerate(steps, 1):
        for hypothesis in (*step.live, *step.finished):
            tokens = tuple(hypothesis.tokens)
            by_prefix[tokens] = hypothesis
            last |= {tokens[:size]: n for size in range(len(tokens) + 1)}
        ended |= {tuple(hypothesis.tokens) for hypothesis in step.finished}
    index = {prefix: i for i, prefix in enumerate(by_prefix)}
    return [
        Node(
            token=prefix[-1] if prefix else root,
            parent=index[prefix[:-1]] if prefix else -1,
            depth=len(prefix),
            log_prob=hypothesis.log_prob - by_prefix[prefix[:-1]].log_prob,
            sum=hypothesis.log_prob,
            score=hypothesis.score,
            last=last[prefix],
            finished=prefix in ended,
            best=prefix == tuple(best[: len(prefix)]),
        )
        for prefix, hypothesis in by_prefix.items()
    ]
