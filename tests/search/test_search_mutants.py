"""Every bug that is planted in search is caught by the test it names."""

from typing import Any

import pytest

from seqlab.search.processors import Options
from tests.mutants import Mutant, planted

EXACT_PHRASES = "search.test_constraints.test_a_beam_that_covers_the_space_is_exact"
SMALL_PHRASES = "search.test_constraints.test_phrases_are_there_whatever_the_model_says"
TOOLKIT = "search.test_presets.test_as_the_toolkit"
FREQUENCIES = "search.test_sampling.test_frequencies"
FORCED = "search.test_ensemble.test_scores_are_those_of_forced_passes"
BEST = "search.test_exact.test_the_best_of_all_answers"

MUTANTS: tuple[tuple[Mutant, tuple[Any, ...]], ...] = (  # and the arguments of their tests
    (
        Mutant(
            "a phrase that overlaps itself begins anew",
            "search.constraints",
            "border = (ends | (j >= m)).all(-1) & (m <= q)[..., 0]",
            "border = (ends | (j >= m)).all(-1) & ((m == q) | (m == 0))[..., 0]",
            "search.test_constraints.test_what_is_begun",
        ),
        (),
    ),
    (
        Mutant(
            "a written phrase is lost again",
            "search.constraints",
            "return jnp.where(begun == full, full, longest)",
            "return longest",
            "search.test_constraints.test_what_is_begun",
        ),
        (),
    ),
    (
        Mutant(
            "banks without places",
            "search.constraints",
            "(total > NEVER / 2) & (rank < jnp.where(",
            "(total > NEVER / 2) & (rank < beam + jnp.where(",
            SMALL_PHRASES,
        ),
        ("seqlab",),
    ),
    (
        Mutant(
            "unlikely tokens of phrases not looked at",
            "search.constraints",
            "jnp.where(twice | (further < 0), 2 * NEVER, value)",
            "jnp.where(twice | (further < beam), 2 * NEVER, value)",
            SMALL_PHRASES,
        ),
        ("seqlab",),
    ),
    (
        Mutant(
            "places for what does not exist",
            "search.constraints",
            "allotted = (total > NEVER / 2) &",
            "allotted = (total < 0) &",
            "search.test_constraints.test_as_plain_lists",
        ),
        (4,),
    ),
    (
        Mutant(
            "continuations twice",
            "search.constraints",
            "jnp.where(twice | (further < 0), 2 * NEVER, value)",
            "jnp.where(further < 0, 2 * NEVER, value)",
            EXACT_PHRASES,
        ),
        (1.0,),
    ),
    (
        Mutant(
            "the end before the phrases",
            "search.constraints",
            "ending = jnp.where(whole(phrases, begun), ending, NEVER)",
            "ending = jnp.where(True, ending, NEVER)",
            "search.test_constraints.test_as_plain_lists",
        ),
        (7,),
    ),
    (
        Mutant(
            "phrases of another hypothesis",
            "search.beam",
            "begun=None if begun is None else begun[rows, kept]",
            "begun=None if begun is None else begun[:, : kept.shape[1]]",
            SMALL_PHRASES,
        ),
        ("seqlab",),
    ),
    (
        Mutant(
            "the same draw at every step",
            "search.sampling",
            "jax.random.fold_in(key, history.t)",
            "jax.random.fold_in(key, 0 * history.t)",
            FREQUENCIES,
        ),
        (Options(),),
    ),
    (
        Mutant(
            "every sentence draws alike",
            "search.sampling",
            "jax.random.fold_in(jax.random.key(seed), number)",
            "jax.random.fold_in(jax.random.key(seed), 0 * number)",
            "search.test_sampling.test_a_sample_hinges_on_its_number_and_its_seed",
        ),
        (),
    ),
    (
        Mutant(
            "samples score what they are drawn from",
            "search.sampling",
            "return draw(keys, scores), logits, none",
            "return draw(keys, scores), scores, none",
            "search.test_sampling.test_a_sample_hinges_on_its_number_and_its_seed",
        ),
        (),
    ),
    (
        Mutant(
            "one token too few of a share",
            "search.processors",
            "least = jnp.where(before < share,",
            "least = jnp.where(before + probabilities < share,",
            FREQUENCIES,
        ),
        (Options(top_p=0.7),),
    ),
    (
        Mutant(
            "one token too many",
            "search.processors",
            "jax.lax.top_k(scores, min(k, scores.shape[-1]))",
            "jax.lax.top_k(scores, min(k + 1, scores.shape[-1]))",
            FREQUENCIES,
        ),
        (Options(top_k=2),),
    ),
    (
        Mutant(
            "a temperature upside down",
            "search.processors",
            "scores / value, NEVER)",
            "scores * value, NEVER)",
            FREQUENCIES,
        ),
        (Options(temperature=0.5),),
    ),
    (
        Mutant(
            "a repetition at the very end",
            "search.processors",
            "alike = jnp.broadcast_to(at + n - 1 < t,",
            "alike = jnp.broadcast_to(at + n < t,",
            "search.test_processors.test_no_repeat_ngrams",
        ),
        (2,),
    ),
    (
        Mutant(
            "negative scores divided",
            "search.processors",
            "scores / penalty, scores * penalty",
            "scores / penalty, scores / penalty",
            "search.test_processors.test_repetition_penalty",
        ),
        (),
    ),
    (
        Mutant(
            "the least length one less",
            "search.processors",
            "early = history.t + 1 < least",
            "early = history.t + 2 < least",
            "search.test_processors.test_what_is_forbidden_and_what_becomes_of_its_probability",
        ),
        (True,),
    ),
    (
        Mutant(
            "what is forbidden keeps its share",
            "search.processors",
            "    if renormalize:\n",
            "    if not renormalize:\n",
            "search.test_processors.test_what_is_forbidden_and_what_becomes_of_its_probability",
        ),
        (True,),
    ),
    (
        Mutant(
            "a sum in place of a mean",
            "search.ensemble",
            "jax.nn.logsumexp(ours, axis=0) - jnp.log(len(self.models))",
            "jax.nn.logsumexp(ours, axis=0)",
            FORCED,
        ),
        ("probabilities", 0.0, None),
    ),
    (
        Mutant(
            "logits in place of log-probabilities",
            "search.ensemble",
            "jax.nn.log_softmax(one, axis=-1) for one",
            "one for one",
            FORCED,
        ),
        ("log_probabilities", 0.0, None),
    ),
    (
        Mutant(
            "the language model without its weight",
            "search.ensemble",
            "scores + self.weight * each[-1]",
            "scores + each[-1]",
            FORCED,
        ),
        ("probabilities", 0.4, None),
    ),
    (
        Mutant(
            "members keep their order",
            "search.ensemble",
            "model.reorder(own, parents) for",
            "(model.reorder(own, parents) if model is self.models[0] else own) for",
            FORCED,
        ),
        ("probabilities", 0.0, None),
    ),
    (
        Mutant(
            "one member does not grow",
            "search.ensemble",
            "tuple(grown(model, own, more) for",
            "tuple(grown(model, own, more) if model is self.models[1] else own for",
            FORCED,
        ),
        ("probabilities", 0.0, None),
    ),
    (
        Mutant("at the limit nothing is accepted", "search.beam", "hit |= last[:, None]", "hit |= False", TOOLKIT),
        ("joey", 2),
    ),
    (
        Mutant(
            "nothing is rescued", "search.beam", 'if rules.limit == "rescue":', 'if rules.limit == "saved":', TOOLKIT
        ),
        ("gnmt", 2),
    ),
    (
        Mutant(
            "what is rescued is normalized",
            "search.beam",
            "_merge(finished, candidates, log_probs, log_probs + rewards, lost, i + 1)",
            "_merge(finished, candidates, log_probs, score(log_probs, i + 1) + rewards, lost, i + 1)",
            TOOLKIT,
        ),
        ("gnmt", 2),
    ),
    (
        Mutant(
            "a beam that never shrinks",
            "search.beam",
            "leaves = hit | (rank >= size - old.count[:, None])",
            "leaves = hit | (rank >= size)",
            TOOLKIT,
        ),
        ("marian", 4),
    ),
    (
        Mutant(
            "the last of the best are kept",
            "search.beam",
            "may_finish &= old.count[:, None] + jnp.cumsum(may_finish, axis=-1) <= size",
            "may_finish &= True",
            TOOLKIT,
        ),
        ("fairseq", 2),
    ),
    (
        Mutant("done at the first end", "search.beam", "done = count >= size\n", "done = count >= 1\n", TOOLKIT),
        ("fairseq", 2),
    ),
    (
        Mutant(
            "places that ended may end again",
            "search.beam",
            "may_finish &= ~over",
            "may_finish &= True",
            TOOLKIT,
        ),
        ("joey", 2),
    ),
    (
        Mutant(
            "done once one of those that go on has ended",
            "search.beam",
            "(over | (token == eos) | ~exists).all(-1)",
            "(over | (token == eos) | ~exists).any(-1)",
            TOOLKIT,
        ),
        ("joey", 2),
    ),
    (
        Mutant(
            "what is not written yet counts as ends",
            "search.beam",
            " & (jnp.arange(candidates.shape[-1]) < i)",
            "",
            "search.test_presets.test_an_end_whose_id_is_0",
        ),
        ("joey",),
    ),
    (
        Mutant(
            "the bound of the best in place of the worst",
            "search.beam",
            "finished.scores[:, -1] >= score(best, i + 1)",
            "finished.scores[:, 0] >= score(best, i + 1)",
            TOOLKIT,
        ),
        ("hf", 4),
    ),
    (
        Mutant(
            "groups that know nothing of each other",
            "search.beam",
            "avoided = avoided.at[rows, one.token].add(",
            "avoided = avoided.at[rows, one.token].add(0 * ",
            "search.test_diverse.test_groups_differ",
        ),
        (),
    ),
    (
        Mutant(
            "the diversity in the score",
            "search.beam",
            "total += jnp.take_along_axis(avoided, token, axis=1)",
            "total += 0 * token",
            "search.test_diverse.test_as_plain_lists",
        ),
        (4, 2),
    ),
    (
        Mutant(
            "groups move as the first",
            "search.beam",
            "parents.append(chosen + g * size)",
            "parents.append(chosen)",
            "search.test_diverse.test_groups_keep_their_own_states",
        ),
        (),
    ),
    (
        Mutant(
            "a block of the vocabulary too few",
            "search.beam",
            "chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), k)[1], axis=-1)",
            "chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), k)[1] // 2, axis=-1)",
            "search.test_search.test_top_k_in_two_stages",
        ),
        ((2, 2, 700), 3),
    ),
    (
        Mutant(
            "the optimal stop hopes for too little",
            "search.beam",
            "possible = (n >= soonest) & (n <= limit[:, None])",
            "possible = n == soonest",
            "search.test_search.test_optimal_waits_for_what_a_long_answer_may_come_to",
        ),
        (),
    ),
    (
        Mutant(
            "the optimal stop looks at the best alone",
            "search.beam",
            "worst = finished.scores[:, min(wanted, size) - 1]",
            "worst = finished.scores[:, 0]",
            "search.test_search.test_a_beam_that_covers_the_space_is_exact",
        ),
        ("random", 1.0),
    ),
    (
        Mutant(
            "too much attention counts",
            "search.coverage",
            "jnp.clip(state[1], SEEN, 1.0)",
            "jnp.clip(state[1], SEEN, 9.0)",
            "search.test_coverage.test_the_score_is_the_attention_s",
        ),
        ("transformer",),
    ),
    (
        Mutant(
            "attention of another hypothesis",
            "search.coverage",
            "jnp.take_along_axis(state[1], parents[..., None], axis=1)",
            "state[1]",
            "search.test_coverage.test_the_score_is_the_attention_s",
        ),
        ("transformer",),
    ),
    (
        Mutant(
            "the word penalty twice",
            "search.length_penalty",
            "log_probs - word_penalty * length",
            "log_probs - 2 * word_penalty * length",
            TOOLKIT,
        ),
        ("marian", 2),
    ),
    (
        Mutant(
            "rows of another batch",
            "search.generate",
            "np.concatenate([part.where + begin for",
            "np.concatenate([part.where + 0 * begin for",
            "search.test_search.test_sentences_that_leave_change_nothing",
        ),
        ("transformer", 3, 2000),
    ),
    (
        Mutant(
            "a step skipped between blocks",
            "search.generate",
            "running.append((shape, end, part",
            "running.append((shape, end + 1, part",
            "search.test_search.test_sentences_that_leave_change_nothing",
        ),
        ("recurrent_lm", 1, 65536),
    ),
    (
        Mutant(
            "those that are left over lost",
            "search.generate",
            "        if count:\n            waiting[shape, at]",
            "        if count > 1:\n            waiting[shape, at]",
            "search.test_search.test_sentences_that_leave_change_nothing",
        ),
        ("recurrent_lm", 1, 2000),
    ),
    (
        Mutant(
            "prompts begin too early",
            "search.requests",
            "prompt[:, row, shape.prompt - len(request.prompt) :]",
            "prompt[:, row, : len(request.prompt)]",
            "search.test_search.test_a_forced_pass_gives_the_score_of_the_search",
        ),
        ("transformer_lm",),
    ),
    (
        Mutant(
            "the limit of another",
            "search.requests",
            "limit[row] = min(request.limit, shape.answer)",
            "limit[row] = min(requests[0].limit, shape.answer)",
            "search.test_search.test_sentences_that_leave_change_nothing",
        ),
        ("transformer", 1, 65536),
    ),
    (
        Mutant(
            "prefixes one token short",
            "search.requests",
            "prefix[row, : len(request.prefix)] = request.prefix",
            "prefix[row, 1 : len(request.prefix)] = request.prefix[1:]",
            "search.test_constraints.test_a_prefix_is_paid_for",
        ),
        (),
    ),
    (
        Mutant(
            "pruned as if it had to end next",
            "search.branch_and_bound",
            "jnp.broadcast_to(limit, room), room, score)",
            "jnp.minimum(limit, depths + 2), room, score)",
            BEST,
        ),
        ("random", "gnmt"),
    ),
    (
        Mutant(
            "a child visited again",
            "search.branch_and_bound",
            "rest = children[parent].at[token].set(2 * NEVER)",
            "rest = children[parent]",
            BEST,
        ),
        ("random", "gnmt"),
    ),
    (
        Mutant(
            "the state of the wrong depth",
            "search.branch_and_bound",
            "x.at[here + 1].set(y, ",
            "x.at[here].set(y, ",
            "search.test_exact.test_models",
        ),
        ("recurrent_lm", "none", 0.0, -1.6),
    ),
    (
        Mutant(
            "a node that is not paid for",
            "search.branch_and_bound",
            "(best.nodes < budget)",
            "(best.nodes <= budget)",
            "search.test_exact.test_a_budget_is_kept",
        ),
        (),
    ),
    (
        Mutant(
            "incumbents forgotten",
            "search.branch_and_bound",
            "zeros, incumbent, nothing, limit <= 0",
            "zeros, nothing, nothing, limit <= 0",
            "search.test_exact.test_incumbents",
        ),
        ("gnmt",),
    ),
    (
        Mutant(
            "those that go on in the places of others",
            "search.exact",
            "[part.where + begin for",
            "[part.where + 0 * begin for",
            "search.test_exact.test_alone_and_in_a_batch",
        ),
        ("recurrent_lm",),
    ),
    (
        Mutant(
            "ancestors pruned before what goes on from them",
            "search.trace",
            "for size in range(len(one.tokens) + 1)",
            "for size in range(len(one.tokens), len(one.tokens) + 1)",
            "search.test_trace.test_as_the_search",
        ),
        ("recurrent_lm", "gnmt", 3, 1),
    ),
    (
        Mutant(
            "what has finished told at every step",
            "search.trace",
            "if len(each.tokens) == n]",
            "if each.tokens]",
            "search.test_trace.test_as_the_search",
        ),
        ("recurrent_lm", "gnmt", 3, 1),
    ),
)


@pytest.mark.parametrize(("mutant", "arguments"), MUTANTS, ids=lambda x: getattr(x, "bug", "").replace(" ", "-"))
def test_mutant_is_caught(mutant, arguments):
    module, _, test = mutant.law.rpartition(".")
    with planted(mutant, f"tests.{module}") as mutated, pytest.raises(AssertionError):
        getattr(mutated, test)(*arguments)
