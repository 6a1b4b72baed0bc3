"""The test that each planted bug of search names catches the bug."""

from typing import Any

from tests.mutants import Mutant, check_caught, each_mutant

EXACT_PHRASES = "search.test_constraints.test_a_beam_that_covers_the_space_is_exact"
SMALL_PHRASES = "search.test_constraints.test_phrases_are_there_whatever_the_model_says"
TOOLKIT = "search.test_presets.test_as_the_toolkit"
FREQUENCIES = "search.test_sampling.test_frequencies"
FORCED = "search.test_ensemble.test_scores_are_those_of_forced_passes"
BEST = "search.test_exact.test_the_best_of_all_answers"

MUTANTS: tuple[tuple[Mutant, tuple[Any, ...]], ...] = (  # with the arguments of the tests
    (
        Mutant(
            "progress of a self-overlapping phrase reset",
            "search.constraints",
            "border = (ends | (j >= m)).all(-1) & (m <= q)[..., 0]",
            "border = (ends | (j >= m)).all(-1) & ((m == q) | (m == 0))[..., 0]",
            "search.test_constraints.test_what_is_begun",
        ),
        (),
    ),
    (
        Mutant(
            "progress of a written phrase lost",
            "search.constraints",
            "return jnp.where(progress == full, full, written)",
            "return written",
            "search.test_constraints.test_what_is_begun",
        ),
        (),
    ),
    (
        Mutant(
            "unlimited places for banks",
            "search.constraints",
            "(total > NEVER / 2) & (rank < jnp.where(",
            "(total > NEVER / 2) & (rank < beam + jnp.where(",
            SMALL_PHRASES,
        ),
        ("seqlab",),
    ),
    (
        Mutant(
            "unlikely tokens of phrases ignored",
            "search.constraints",
            "jnp.where(is_duplicate | (next_ids < 0), 2 * NEVER, value)",
            "jnp.where(is_duplicate | (next_ids < beam), 2 * NEVER, value)",
            SMALL_PHRASES,
        ),
        ("seqlab",),
    ),
    (
        Mutant(
            "places for missing hypotheses",
            "search.constraints",
            "allotted = (total > NEVER / 2) &",
            "allotted = (total < 0) &",
            "search.test_constraints.test_as_plain_lists",
        ),
        (4,),
    ),
    (
        Mutant(
            "duplicate continuations",
            "search.constraints",
            "jnp.where(is_duplicate | (next_ids < 0), 2 * NEVER, value)",
            "jnp.where(next_ids < 0, 2 * NEVER, value)",
            EXACT_PHRASES,
        ),
        (1.0,),
    ),
    (
        Mutant(
            "EOS before the phrases",
            "search.constraints",
            "ending = jnp.where(all_written(phrases, progress), ending, NEVER)",
            "ending = jnp.where(True, ending, NEVER)",
            "search.test_constraints.test_as_plain_lists",
        ),
        (7,),
    ),
    (
        Mutant(
            "phrase progress of another hypothesis",
            "search.beam",
            "else candidates.phrase_progress[rows, order]",
            "else candidates.phrase_progress[:, : order.shape[1]]",
            SMALL_PHRASES,
        ),
        ("seqlab",),
    ),
    (
        Mutant(
            "same draw at every step",
            "search.sampling",
            "jax.random.fold_in(key, history.t)",
            "jax.random.fold_in(key, 0 * history.t)",
            FREQUENCIES,
        ),
        ({},),
    ),
    (
        Mutant(
            "same draws for every sentence",
            "search.sampling",
            "jax.random.fold_in(jax.random.key(seed), number)",
            "jax.random.fold_in(jax.random.key(seed), 0 * number)",
            "search.test_sampling.test_a_sample_depends_on_its_number_and_its_seed",
        ),
        (),
    ),
    (
        Mutant(
            "samples scored by the modified distribution",
            "search.sampling",
            "jnp.where(possible, logits, NEVER), normalizer",
            "jnp.where(possible, scores, NEVER), normalizer",
            "search.test_sampling.test_a_sample_depends_on_its_number_and_its_seed",
        ),
        (),
    ),
    (
        Mutant(
            "one token too few in top-p",
            "search.processors",
            "lowest = jnp.where(before < share,",
            "lowest = jnp.where(before + probabilities < share,",
            FREQUENCIES,
        ),
        ({"top_p": 0.7},),
    ),
    (
        Mutant(
            "one token too many in top-k",
            "search.processors",
            "jax.lax.top_k(scores, min(k, scores.shape[-1]))",
            "jax.lax.top_k(scores, min(k + 1, scores.shape[-1]))",
            FREQUENCIES,
        ),
        ({"top_k": 2},),
    ),
    (
        Mutant(
            "temperature inverted",
            "search.processors",
            "below / max(value, SMALLEST_TEMPERATURE)",
            "below * max(value, SMALLEST_TEMPERATURE)",
            FREQUENCIES,
        ),
        ({"temperature": 0.5},),
    ),
    (
        Mutant(
            "repetition at the end allowed",
            "search.processors",
            "alike = (at + n - 1 < t)",
            "alike = (at + n < t)",
            "search.test_processors.test_no_repeat_ngrams",
        ),
        (2,),
    ),
    (
        Mutant(
            "padding of a prompt counts as text",
            "search.processors",
            "prompt = self.prompt.ids, self.prompt.mask",
            "prompt = self.prompt.ids, jnp.ones_like(self.prompt.mask)",
            "search.test_processors.test_a_prompt_counts_as_text",
        ),
        (1,),
    ),
    (
        Mutant(
            "a small temperature makes allowed tokens impossible",
            "search.processors",
            "jnp.maximum(below / max(value, SMALLEST_TEMPERATURE), NEVER / 4)",
            "below / max(value, SMALLEST_TEMPERATURE)",
            "search.test_sampling.test_a_small_temperature_is_greedy",
        ),
        (1e-9,),
    ),
    (
        Mutant(
            "negative scores divided by the penalty",
            "search.processors",
            "scores / penalty, scores * penalty",
            "scores / penalty, scores / penalty",
            "search.test_processors.test_repetition_penalty",
        ),
        (),
    ),
    (
        Mutant(
            "minimum length off by one",
            "search.processors",
            "early = history.t + 1 < minimum",
            "early = history.t + 2 < minimum",
            "search.test_processors.test_what_is_forbidden_and_what_becomes_of_its_probability",
        ),
        (True,),
    ),
    (
        Mutant(
            "forbidden tokens keep their probability",
            "search.processors",
            "    if renormalize:\n",
            "    if not renormalize:\n",
            "search.test_processors.test_what_is_forbidden_and_what_becomes_of_its_probability",
        ),
        (True,),
    ),
    (
        Mutant(
            "sum instead of mean",
            "search.ensemble",
            "jax.nn.logsumexp(models, axis=0) - jnp.log(len(self.models))",
            "jax.nn.logsumexp(models, axis=0)",
            FORCED,
        ),
        ("probabilities", 0.0, None),
    ),
    (
        Mutant(
            "logits instead of log-probabilities",
            "search.ensemble",
            "jax.nn.log_softmax(x, axis=-1) for x",
            "x for x",
            FORCED,
        ),
        ("log_probabilities", 0.0, None),
    ),
    (
        Mutant(
            "weight of the language model ignored",
            "search.ensemble",
            "scores + self.weight * log_probs[-1]",
            "scores + log_probs[-1]",
            FORCED,
        ),
        ("probabilities", 0.4, None),
    ),
    (
        Mutant(
            "members not reordered",
            "search.ensemble",
            "model.reorder(inner, parents) for",
            "(model.reorder(inner, parents) if model is self.models[0] else inner) for",
            FORCED,
        ),
        ("probabilities", 0.0, None),
    ),
    (
        Mutant(
            "one member not grown",
            "search.ensemble",
            "tuple(model.grow(inner, more) for",
            "tuple(model.grow(inner, more) if model is self.models[1] else inner for",
            FORCED,
        ),
        ("probabilities", 0.0, None),
    ),
    (
        Mutant(
            "hypotheses not accepted at the limit", "search.beam", "ends |= last[:, None]", "ends |= False", TOOLKIT
        ),
        ("joey", 2),
    ),
    (
        Mutant(
            "hypotheses not rescued at the limit",
            "search.beam",
            'if rules.at_max_length == "rescue":',
            'if rules.at_max_length == "saved":',
            TOOLKIT,
        ),
        ("gnmt", 2),
    ),
    (
        Mutant(
            "rescued hypotheses normalized",
            "search.beam",
            "merge(finished, tokens, log_probs, log_probs + rewards, lost, i + 1)",
            "merge(finished, tokens, log_probs, scores, lost, i + 1)",
            TOOLKIT,
        ),
        ("gnmt", 2),
    ),
    (
        Mutant(
            "beam does not shrink",
            "search.beam",
            "is_removed = ends | (rank >= size - old.count[:, None])",
            "is_removed = ends | (rank >= size)",
            TOOLKIT,
        ),
        ("marian", 4),
    ),
    (
        Mutant(
            "more than K hypotheses finish",
            "search.beam",
            "may_finish &= old.count[:, None] + jnp.cumsum(may_finish, axis=-1) <= size",
            "may_finish &= True",
            TOOLKIT,
        ),
        ("fairseq", 2),
    ),
    (
        Mutant(
            "done at the first finished hypothesis",
            "search.beam",
            "return count >= size\n",
            "return count >= 1\n",
            TOOLKIT,
        ),
        ("fairseq", 2),
    ),
    (
        Mutant(
            "ended places end again",
            "search.beam",
            "may_finish &= ~ended_before",
            "may_finish &= True",
            TOOLKIT,
        ),
        ("joey", 2),
    ),
    (
        Mutant(
            "done once any unfinished hypothesis had ended before",
            "search.beam",
            "(endings.ended | ~endings.exists).all(-1) | stuck.all(-1)",
            "(endings.ended | ~endings.exists).all(-1) | stuck.any(-1)",
            TOOLKIT,
        ),
        ("joey", 2),
    ),
    (
        Mutant(
            "unwritten positions counted as EOS",
            "search.beam",
            " & (jnp.arange(tokens.shape[-1]) < i)",
            "",
            "search.test_presets.test_an_end_whose_id_is_0",
        ),
        ("joey",),
    ),
    (
        Mutant(
            "bound of the best instead of the worst",
            "search.beam",
            "finished.scores[:, -1] >= context.score(best, i + 1)",
            "finished.scores[:, 0] >= context.score(best, i + 1)",
            TOOLKIT,
        ),
        ("hf", 4),
    ),
    (
        Mutant(
            "groups independent of each other",
            "search.beam",
            "penalties = penalties.at[rows, beam.token].add(",
            "penalties = penalties.at[rows, beam.token].add(0 * ",
            "search.test_diverse.test_groups_differ",
        ),
        (),
    ),
    (
        Mutant(
            "diversity penalty included in the score",
            "search.candidates",
            "total += jnp.take_along_axis(penalties, token, axis=1)",
            "total += 0 * token",
            "search.test_diverse.test_as_plain_lists",
        ),
        (4, 2),
    ),
    (
        Mutant(
            "parents of the first group used for all groups",
            "search.beam",
            "parents.append(chosen + g * size)",
            "parents.append(chosen)",
            "search.test_diverse.test_groups_keep_their_own_states",
        ),
        (),
    ),
    (
        Mutant(
            "blocks of the vocabulary skipped",
            "search.candidates",
            "chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), k)[1], axis=-1)",
            "chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), k)[1] // 2, axis=-1)",
            "search.test_search.test_top_k_in_two_stages",
        ),
        ((2, 2, 700), 3),
    ),
    (
        Mutant(
            "upper bound ignores longer hypotheses",
            "search.length_penalty",
            "possible = (n >= soonest) & (n <= limit[:, None])",
            "possible = n == soonest",
            "search.test_search.test_optimal_waits_for_what_a_long_answer_may_come_to",
        ),
        (),
    ),
    (
        Mutant(
            "optimal stop compares only with the best",
            "search.beam",
            "worst = finished.scores[:, min(context.static.nbest, size) - 1]",
            "worst = finished.scores[:, 0]",
            "search.test_search.test_a_beam_that_covers_the_space_is_exact",
        ),
        ("random", 1.0),
    ),
    (
        Mutant(
            "attention above one counted",
            "search.coverage",
            "jnp.clip(state[1], SEEN, 1.0)",
            "jnp.clip(state[1], SEEN, 9.0)",
            "search.test_coverage.test_the_score_is_the_attention_s",
        ),
        ("transformer",),
    ),
    (
        Mutant(
            "attention not reordered",
            "search.coverage",
            "jnp.take_along_axis(state[1], parents[..., None], axis=1)",
            "state[1]",
            "search.test_coverage.test_the_score_is_the_attention_s",
        ),
        ("transformer",),
    ),
    (
        Mutant(
            "word penalty applied twice",
            "search.length_penalty",
            "log_probs - word_penalty * length",
            "log_probs - 2 * word_penalty * length",
            TOOLKIT,
        ),
        ("marian", 2),
    ),
    (
        Mutant(
            "rows of another batch joined",
            "search.scheduler",
            "np.concatenate([batch.row_indices + begin for",
            "np.concatenate([batch.row_indices + 0 * begin for",
            "search.test_search.test_sentences_that_leave_change_nothing",
        ),
        ("transformer", 3, 2000),
    ),
    (
        Mutant(
            "step skipped between calls",
            "search.scheduler",
            "running.append((shape, end, batch",
            "running.append((shape, end + 1, batch",
            "search.test_search.test_sentences_that_leave_change_nothing",
        ),
        ("recurrent_lm", 1, 65536),
    ),
    (
        Mutant(
            "last waiting sentence dropped",
            "search.scheduler",
            "        if count:\n            self.partial_batches[shape, step]",
            "        if count > 1:\n            self.partial_batches[shape, step]",
            "search.test_search.test_sentences_that_leave_change_nothing",
        ),
        ("recurrent_lm", 1, 2000),
    ),
    (
        Mutant(
            "prompts left-aligned",
            "search.requests",
            'shape.prompt, rows, align="right")',
            "shape.prompt, rows)",
            "search.test_search.test_a_forced_pass_gives_the_score_of_the_search",
        ),
        ("transformer_lm",),
    ),
    (
        Mutant(
            "limit of the first request used for all",
            "search.requests",
            "limit[row] = min(request.limit, shape.text)",
            "limit[row] = min(requests[0].limit, shape.text)",
            "search.test_search.test_sentences_that_leave_change_nothing",
        ),
        ("transformer", 1, 65536),
    ),
    (
        Mutant(
            "first token of prefixes dropped",
            "search.requests",
            "prefix[row, : len(request.prefix)] = request.prefix",
            "prefix[row, 1 : len(request.prefix)] = request.prefix[1:]",
            "search.test_constraints.test_a_prefix_is_paid_for",
        ),
        (),
    ),
    (
        Mutant(
            "pruned by a limit that is too low",
            "search.branch_and_bound",
            "jnp.broadcast_to(limit, room)",
            "jnp.minimum(limit, depths + 2)",
            BEST,
        ),
        ("random", "gnmt"),
    ),
    (
        Mutant(
            "child visited again",
            "search.branch_and_bound",
            "siblings = children[parent].at[token].set(2 * NEVER)",
            "siblings = children[parent]",
            BEST,
        ),
        ("random", "gnmt"),
    ),
    (
        Mutant(
            "state of the wrong depth",
            "search.branch_and_bound",
            "x.at[place + 1].set(y, ",
            "x.at[place].set(y, ",
            "search.test_exact.test_models",
        ),
        ("recurrent_lm", "none", 0.0, -1.6),
    ),
    (
        Mutant(
            "budget off by one",
            "search.branch_and_bound",
            "(best.nodes < self.budget)",
            "(best.nodes <= self.budget)",
            "search.test_exact.test_a_budget_is_kept",
        ),
        (),
    ),
    (
        Mutant(
            "incumbents ignored",
            "search.branch_and_bound",
            "zeros, incumbent, empty, limit <= 0",
            "zeros, empty, empty, limit <= 0",
            "search.test_exact.test_incumbents",
        ),
        ("gnmt",),
    ),
    (
        Mutant(
            "waiting sentences in the wrong rows",
            "search.scheduler",
            "batch.row_indices + begin for",
            "batch.row_indices + 0 * begin for",
            "search.test_exact.test_alone_and_in_a_batch",
        ),
        ("recurrent_lm",),
    ),
    (
        Mutant(
            "ancestors pruned before their extensions",
            "search.trace",
            "for size in range(len(tokens) + 1)",
            "for size in range(len(tokens), len(tokens) + 1)",
            "search.test_trace.test_as_the_search",
        ),
        ("recurrent_lm", "gnmt", 3, 1),
    ),
    (
        Mutant(
            "finished hypotheses repeated at every step",
            "search.trace",
            "if len(hypothesis.tokens) == n]",
            "if hypothesis.tokens]",
            "search.test_trace.test_as_the_search",
        ),
        ("recurrent_lm", "gnmt", 3, 1),
    ),
)


@each_mutant(MUTANTS)
def test_mutant_is_caught(mutant, arguments, tmp_path):
    check_caught(mutant, arguments, tmp_path)
