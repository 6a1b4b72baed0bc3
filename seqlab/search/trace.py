"""What a beam search does with one request, step by step: what stayed in the beam, what finished, and their tree."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqlab.search.beam import Beam, Hypotheses
from seqlab.search.ensemble import Ensemble
from seqlab.search.generate import Result, check
from seqlab.search.length_penalty import normalized
from seqlab.search.processors import NEVER, NO_OPTIONS, Options
from seqlab.search.requests import Request, collate, shapes
from seqlab.search.rules import DEFAULT, Rules
from seqlab.search.searcher import DEFAULT_WEIGHTS, Method, Weights, make_mesh, make_searcher
from seqlab.types import Generator, Params


class Hypothesis(NamedTuple):
    """Tokens, their summed log-probability, and the score for so many tokens; of a finished one, its final score."""

    tokens: list[int]
    log_prob: float
    score: float


class Step(NamedTuple):
    """After step n: the hypotheses in the beam, each of n tokens, and what has finished with n tokens and is kept."""

    live: list[Hypothesis]
    finished: list[Hypothesis]


class Node(NamedTuple):
    """A prefix that was in the beam or finished. `log_prob` is the last token's, `sum` and `score` are of the whole.

    The root, with the prompt's last token, has parent -1 and depth 0. `last` is the last step after which it or
    something that goes on from it was in the beam or finished: the next one has pruned it. `best`: it begins the best
    result.
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
    """Plain data: the steps from the first on, the tree with parents before their children, the best result (None:
    nothing has finished).
    """

    steps: list[Step]
    nodes: list[Node]
    best: Result | None


def trace(
    model: Generator | Ensemble,
    params: Params,
    request: Request,
    *,
    eos: int,
    beam: int = 5,
    weights: Weights = DEFAULT_WEIGHTS,
    rules: Rules | None = None,
    options: Options = NO_OPTIONS,
    groups: int = 1,
) -> Trace:
    """What `generate` does with the same arguments; greedy search as a beam of one that stops at its first end."""
    asked = rules or (None if beam == 1 else DEFAULT)
    check(model, [request], beam, 1, weights, asked, options, groups, None)
    rules = asked or Rules(stop="first")
    method = Method(beam, 1, rules, options, groups=groups, covering=bool(weights.coverage))
    device = jax.local_devices()[:1]
    params, searcher = jax.device_put(params, device[0]), make_searcher(model, eos, method, make_mesh(device))
    ((shape, _),) = shapes([request], getattr(model, "longest", None)).items()
    rows = searcher.begin(params, collate([request], 1, shape), length=shape.answer)
    start, most = shape.prompt - 1, shape.answer
    steps: list[Step] = []
    while len(steps) < most and not rows.search.done.all():
        n, going = len(steps) + 1, [not one.done[0] for one in rows.search.beams]
        rows = searcher.go_on(params, rows, n - 1, n, weights, 0, start=start, most=most)
        beams = [one for one, goes_on in zip(rows.search.beams, going, strict=True) if goes_on]
        steps.append(step_of(beams, n, weights, rules.length))
    best = next(iter(listed(searcher.results(rows))), None)
    nodes = tree(steps, request.prompt[-1], best.tokens if best else [])
    return Trace(steps, nodes, best and Result(best.tokens, best.score, best.log_prob))


def step_of(beams: Sequence[Beam], n: int, weights: Weights, rule: str) -> Step:
    """What the groups of a beam that were not done before have come to with n tokens."""
    live, ended = [], []
    for one in beams:
        lengths = jnp.full(one.log_probs.shape, n)
        scores = normalized(one.log_probs, lengths, weights.alpha, weights.word_penalty, rule)
        live += listed(Hypotheses(one.tokens, lengths, scores, one.log_probs))
        ended += [each for each in listed(one.finished) if len(each.tokens) == n]
    return Step(live, ended)


def listed(found: Hypotheses) -> list[Hypothesis]:
    """The hypotheses of the only sentence that exist."""
    columns = (found.tokens, found.lengths, found.log_probs, found.scores)
    each = zip(*(column[0].tolist() for column in columns), strict=True)
    return [Hypothesis(tokens[:n], log_prob, score) for tokens, n, log_prob, score in each if log_prob > NEVER / 2]


def tree(steps: Sequence[Step], root: int, best: Sequence[int]) -> list[Node]:
    """All prefixes that the steps tell of, parents first, under a root with that token."""
    known: dict[tuple[int, ...], Hypothesis] = {(): Hypothesis([], 0.0, 0.0)}
    last: dict[tuple[int, ...], int] = {(): 0}
    ended: set[tuple[int, ...]] = set()
    for n, step in enumerate(steps, 1):
        for one in (*step.live, *step.finished):
            known[tuple(one.tokens)] = one
            last |= {tuple(one.tokens[:size]): n for size in range(len(one.tokens) + 1)}
        ended |= {tuple(one.tokens) for one in step.finished}
    index = {prefix: i for i, prefix in enumerate(known)}
    return [
        Node(
            token=prefix[-1] if prefix else root,
            parent=index[prefix[:-1]] if prefix else -1,
            depth=len(prefix),
            log_prob=one.log_prob - known[prefix[:-1]].log_prob,
            sum=one.log_prob,
            score=one.score,
            last=last[prefix],
            finished=prefix in ended,
            best=prefix == tuple(best[: len(prefix)]),
        )
        for prefix, one in known.items()
    ]
