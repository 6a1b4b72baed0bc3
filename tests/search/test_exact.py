"""Exact search against all possible answers, and against the same search in plain lists."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.laws import search as search_laws
from seqlab.laws.equality import require_close
from seqlab.search import exact
from seqlab.search.branch_and_bound import begin_path, branch_and_bound
from seqlab.search.ensemble import Ensemble
from seqlab.search.exact import exact_search
from seqlab.search.presets import Rules
from seqlab.search.processors import NEVER
from seqlab.search.requests import Shape, collate
from seqlab.search.settings import ScoreWeights
from seqlab.system.errors import SeqlabError
from tests.oracles.search import depth_first, exhaustive, length_score
from tests.subjects import subject
from tests.tables import search_table

VOCABULARY, LENGTH, EOS, ROWS = 4, 5, 2, 6
LIMITS = np.array([5, 4, 2, 1, 5, 3])
RULES = [("none", 0.0), ("gnmt", 0.6), ("gnmt", 2.5), ("gnmt", -0.5), ("power", 1.0)]
FAMILIES = [
    ("transformer", "gnmt", 1.0, -1.0),
    ("recurrent_lm", "none", 0.0, -1.6),
    ("conv_seq2seq", "gnmt", 0.6, 0.0),
    ("bahdanau", "none", 0.0, -1.6),
    ("tcn_lm", "power", 1.0, -0.5),
]
MANY = 1000  # more nodes than the search needs


@functools.partial(jax.jit, static_argnames="rule")
def search(table, limit, incumbent, budget, alpha, word_penalty, rule):
    """Searches with a table as the model: logits [B T V V] by row, step and previous token."""
    batch, length, vocabulary, _ = table.shape

    def step(memory, state, token, t):
        return memory[t, token], state

    path = begin_path((), jnp.ones(batch, int), limit, incumbent, length=length, vocabulary=vocabulary)
    static = search_laws.settings_of(length=rule).static
    weights = ScoreWeights(alpha, word_penalty, 0.0, 0.0)
    return branch_and_bound(step, table, path, limit, 2 * budget, budget, static, weights).best


@functools.partial(jax.jit, static_argnames=("beam", "rule"))
def beam_search(table, limit, beam, rule):
    return search_table(table, limit, eos=EOS, beam=beam, alpha=0.6, rules=Rules(rule))


def tables(kind: str, shape: tuple[int, ...] = (ROWS, LENGTH, VOCABULARY, VOCABULARY)) -> np.ndarray:
    logits = np.random.default_rng(5).normal(size=shape).astype(np.float32) * 2
    if kind == "ties":
        return np.round(logits / 2)
    if kind == "never":
        logits[:, 1:, :, 3] = NEVER
    logits[..., EOS] -= {"no eos": 12.0, "eos seldom": 3.0}.get(kind, 0.0)
    return logits


@pytest.mark.parametrize("kind", ["random", "ties", "no eos", "never"])
@pytest.mark.parametrize("rule", [rule for rule, _ in RULES])
def test_the_best_of_all_answers(kind, rule):
    """The number of nodes also equals that of plain lists if scores never tie."""
    table = tables(kind)
    for alpha, word_penalty in [*((alpha, 0.0) for name, alpha in RULES if name == rule), (0.8, 0.7), (0.8, -0.7)]:
        nothing = np.full(ROWS, NEVER, np.float32)
        found = jax.device_get(search(table, LIMITS, nothing, MANY, alpha, word_penalty, rule))
        assert found.decided.all()
        score = length_score(rule, alpha, word_penalty)
        for row, limit in enumerate(map(int, LIMITS)):
            truth = exhaustive(table[row], 1, EOS, limit, alpha, rule, word_penalty)
            by_answer = {tuple(answer): score for score, answer in truth}
            answer = tuple(found.tokens[row, : found.lengths[row]].tolist())
            assert by_answer[answer] == pytest.approx(truth[0][0], abs=1e-5)
            assert found.scores[row] == pytest.approx(truth[0][0], abs=1e-5)
            assert score(float(found.log_probs[row]), len(answer)) == pytest.approx(truth[0][0], abs=1e-5)
            assert not found.tokens[row, found.lengths[row] :].any()
            if kind in ("random", "no eos"):
                assert (list(answer), found.nodes[row]) == depth_first(table[row], 1, EOS, limit, score, NEVER)


@pytest.mark.parametrize("rule", ["none", "gnmt", "power"])
def test_no_beam_is_better(rule):
    """Uses tables too large to enumerate all answers. At least one beam is worse."""
    table, limit = tables("eos seldom", (8, 9, 11, 11)), np.array([9, 8, 7, 6, 5, 9, 9, 1])
    found = search(table, limit, np.full(8, NEVER, np.float32), 100_000, 0.6, 0.0, rule)
    worse = 0
    for beam in (1, 2, 5, 9):
        scores = beam_search(table, limit, beam, rule).scores[:, 0]
        assert (found.scores >= scores - 1e-5).all()
        worse += int((found.scores > scores + 1e-3).sum())
    assert found.decided.all()
    assert worse > 0


@pytest.mark.parametrize("rule", ["gnmt", "power"])
def test_incumbents(rule):
    """An incumbent with the best score is not beaten. A slightly worse one is beaten, with fewer nodes than without
    any incumbent.
    """
    table = tables("random")
    run = functools.partial(search, table, LIMITS, budget=MANY, alpha=0.6, word_penalty=0.0, rule=rule)
    alone = jax.device_get(run(incumbent=np.full(ROWS, NEVER, np.float32)))
    same, worse = (jax.device_get(run(incumbent=alone.scores - less)) for less in (0.0, 1e-3))
    assert same.decided.all()
    assert not same.lengths.any()
    np.testing.assert_array_equal(same.scores, alone.scores)
    np.testing.assert_array_equal(worse.tokens, alone.tokens)
    np.testing.assert_array_equal(worse.scores, alone.scores)
    assert (same.nodes <= worse.nodes).all()
    assert (worse.nodes <= alone.nodes).all()
    assert worse.nodes.sum() < alone.nodes.sum()
    for row, limit in enumerate(map(int, LIMITS)):
        score = length_score(rule, 0.6, 0.0)
        for found, less in ((same, 1e-5), (worse, -1e-3)):
            _, nodes = depth_first(table[row], 1, EOS, limit, score, float(alone.scores[row]) + less)
            assert found.nodes[row] == nodes


def test_a_budget_is_kept():
    """Sentences that have used up their nodes are undecided, and decided ones have the best answer."""
    table = tables("eos seldom")
    run = functools.partial(search, table, LIMITS, np.full(ROWS, NEVER, np.float32))
    whole = jax.device_get(run(MANY, 1.0, 0.0, "gnmt"))
    for budget in (1, 2, 3, 7, int(whole.nodes.max()) - 1):
        found = jax.device_get(run(budget, 1.0, 0.0, "gnmt"))
        np.testing.assert_array_equal(found.nodes, np.minimum(whole.nodes, budget))
        np.testing.assert_array_equal(found.decided, whole.nodes <= budget)
        np.testing.assert_array_equal(found.scores[found.decided], whole.scores[found.decided])
        assert (found.scores <= whole.scores).all()
        assert found.lengths.all()  # the first node already has an answer
        assert 0 < found.decided.sum() < ROWS


def sure_subject(name):
    """Returns a model with confident predictions, so that answers differ in length and some trees are
    pruned early.
    """
    s = subject(name, seed=5)
    return s._replace(params=jax.tree.map(lambda x: 3 * x, s.params))


def requests_of(s, limits=(4, 3, 2, 1, 4)):
    return [one._replace(limit=limit) for one, limit in zip(search_laws.requests_of(s, 4), limits, strict=True)]


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "length", "alpha", "word_penalty"), FAMILIES)
def test_models(name, length, alpha, word_penalty):
    """Compares with the best of all answers by forced passes, for sources and prompts of unequal lengths."""
    s = sure_subject(name)
    requests = requests_of(s)
    others = [token for token in range(s.model.vocabulary) if token != EOS]
    answers = [[*head, EOS] for n in range(4) for head in itertools.product(others, repeat=n)]
    lengths = np.array([len(answer) for answer in answers])
    score = length_score(length, alpha, word_penalty)
    fields = {"length": length, "alpha": alpha, "word_penalty": word_penalty}
    found = exact_search(s.model, s.params, requests, search_laws.settings_of(**fields))
    beams = search_laws.search(s, requests, beam=2, **fields)
    best, log_probs = [], []
    for row, (request, one, (beam,)) in enumerate(zip(requests, found, beams, strict=True)):
        sums = search_laws.forced_scores(s, row, request.prompt, answers, 0.0)[1]
        scores = np.where(lengths <= request.limit, score(sums, lengths), -np.inf)
        best.append(scores.max())
        log_probs.append(sums[answers.index(one.ids)])
        assert one.decided
        assert scores[answers.index(one.ids)] > scores.max() - 1e-5
        assert one.score >= beam.score - 1e-5
    require_close([one.score for one in found], best, "scores")
    require_close([one.log_prob for one in found], log_probs, "log-probabilities")
    assert len({one.nodes for one in found}) > 3
    assert max(len(one.ids) for one in found) > 1


@pytest.mark.parametrize("name", ["transformer", "recurrent_lm"])
def test_alone_and_in_a_batch(name):
    """The answers do not depend on the other sentences of a batch, nor on the checks after which some are removed and
    others take their places. The best score as an incumbent is not beaten.
    """
    s = sure_subject(name)
    requests = [one for limits in ((4, 3, 2, 1, 4), (2, 4, 4, 3, 1)) for one in requests_of(s, limits)]
    requests = [one for one in requests if one.source or len(one.prompt) > 1]  # of one shape
    settings = search_laws.settings_of(alpha=1.0, word_penalty=-1.0)
    run = functools.partial(exact_search, s.model, s.params, settings=settings)
    alone = [one for request in requests for one in run([request])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "BATCH_SIZES", (1, 4))
        patch.setattr(exact, "NODES_PER_CALL", 5)
        together = run(requests)
        scores = [one.score for one in together]
        standing = run(requests, incumbents=scores)
        beaten = run(requests, incumbents=[score - 0.01 for score in scores])
        few = run(requests, budget=7)
    for one, other in zip(alone, together, strict=True):
        assert (one.ids, one.nodes, one.decided) == (other.ids, other.nodes, True)
        assert (one.score, one.log_prob) == pytest.approx((other.score, other.log_prob), rel=1e-5)
    assert len({one.nodes for one in together}) > 3
    assert [(one.ids, one.score, one.decided) for one in standing] == [([], score, True) for score in scores]
    assert [one.ids for one in beaten] == [one.ids for one in together]
    assert [one.nodes for one in few] == [min(one.nodes, 7) for one in together]
    assert [one.decided for one in few] == [one.nodes <= 7 for one in together]


def test_memory_is_bounded(monkeypatch):
    """If two sentences exceed the memory, each is searched alone, with the same results."""
    s = sure_subject("transformer")
    sizes, solver = [], exact.make_solver(s.model, search_laws.settings_of(alpha=1.0).static)

    def counting(params, rows, *rest, **named):
        sizes.append(len(rows.limit))
        return solver.advance(params, rows, *rest, **named)

    monkeypatch.setattr(exact, "make_solver", lambda *_: solver._replace(advance=counting))
    run = functools.partial(exact_search, s.model, s.params, requests_of(s), search_laws.settings_of(alpha=1.0))
    together = run()
    assert set(sizes) == {8}
    monkeypatch.setattr(exact, "MAX_BATCH_BYTES", 1000)
    sizes.clear()
    assert [one.ids for one in run()] == [one.ids for one in together]
    assert sizes == [1] * 5


def test_what_cannot_be_had():
    s = subject("tcn_lm")
    requests = requests_of(s)
    run = functools.partial(exact_search, params=s.params, settings=search_laws.settings_of())
    assert run(s.model, requests=[]) == []
    with pytest.raises(SeqlabError, match="single model"):
        run(Ensemble((s.model,)), requests=requests)
    with pytest.raises(SeqlabError, match="length must be one of"):
        search_laws.settings_of(length="root")
    with pytest.raises(SeqlabError, match="does not support forbidden tokens"):
        run(s.model, requests=requests, settings=search_laws.settings_of(forbidden=(3,)))
    with pytest.raises(SeqlabError, match="incumbents, one per request"):
        run(s.model, requests=requests, incumbents=[0.0])
    with pytest.raises(SeqlabError, match="budget must be at least 1"):
        run(s.model, requests=requests, budget=0)
    for asked in ({"prefix": [3]}, {"phrases": [[3]]}, {"minimum": 2}):
        with pytest.raises(SeqlabError, match="request 1: exact search does not support"):
            run(s.model, requests=[requests[0], requests[1]._replace(**asked)])


def test_nodes_are_compiled_once():
    """An expansion preserves all types, so that it is not compiled again."""
    s = subject("transformer")
    asked = collate(requests_of(s)[:2], 2, Shape(16, 1, 4))
    settings = search_laws.settings_of()
    solver = exact.make_solver(s.model, settings.static)

    def leaves():
        rows = solver.begin(s.params, asked, jnp.zeros(2), length=4)
        return jax.tree.leaves(rows), jax.tree.leaves(
            solver.advance(s.params, rows, 1, 1, settings.weights, prompt_end=0)
        )

    before, after = jax.eval_shape(leaves)
    assert [(x.shape, x.dtype, x.weak_type) for x in before] == [(x.shape, x.dtype, x.weak_type) for x in after]
