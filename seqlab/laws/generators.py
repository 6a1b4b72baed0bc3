"""Laws of generators: forced passes, single steps, packed texts and streams."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from seqlab.laws.equality import require, require_close, require_equal
from seqlab.laws.models import changed_inputs
from seqlab.laws.subject import LENGTHS, Subject, columns_of, features_of, first_prompt, forced, outputs, rows_of
from seqlab.types import Inputs, Params, Tokens

HYPOTHESES = 3  # per sentence, in laws that take single steps


def future_is_unseen(s: Subject) -> None:
    """Changing an id does not change any logit before it, bitwise."""
    before = np.asarray(s.forward(s.params, s.inputs, s.prefix))
    positions = jax.tree.leaves(s.inputs if s.prefix is None else s.prefix)[0].shape[1]
    if before.shape[1] != positions:  # a reader joins positions, and outputs cannot be assigned to inputs
        return
    for t in range(1, positions):
        inputs, prefix = s.inputs, s.prefix
        if prefix is None:
            inputs = changed_inputs(s, slice(t, None))
        else:
            ids = prefix.ids.copy()
            ids[:, t:] = (ids[:, t:] + 1) % s.model.vocabulary
            prefix = prefix.replace(ids=ids)
        after = s.forward(s.params, inputs, prefix)
        require_equal(before[:, :t], np.asarray(after)[:, :t], f"logits before position {t} after changing later ids")


def past_matters(s: Subject) -> None:
    """A changed id changes the last logits if and only if it is in the model's `receptive_field` (None: all)."""
    length = s.prefix.ids.shape[1]
    reach = s.model.receptive_field or length
    rows = np.full(length, len(LENGTHS) - 1)  # the row with the longest prefix, once for each distance
    distance = np.arange(length)
    ids = s.prefix.ids[rows]
    ids[distance, length - 1 - distance] += distance > 0
    effect = np.zeros(length)
    for factor in (1, 2, 3):  # a ReLU may hide a change
        params = jax.tree.map(lambda x, n=factor: np.asarray(x) * np.float32(n), s.params)
        logits = forced(s, params, rows, ids % s.model.vocabulary, s.prefix.mask[rows])[:, -1]
        effect = np.maximum(effect, abs(logits - logits[0]).max(-1) / max(abs(logits[0]).max(), 1e-30))
    for n in range(1, length):
        if n < reach:
            require(effect[n] > 1e-6, f"an id {n} positions back has no effect")
        else:
            require(effect[n] <= 1e-6, f"an id {n} positions back, outside the receptive field, has an effect")


class Stepper(NamedTuple):
    """The compiled functions `start(params, inputs, prompt)`, `step(params, memory, state, token, t)` and
    `reorder(state, parents)`.
    """

    start: Callable[..., Any]
    step: Callable[..., Any]
    reorder: Callable[..., Any]


@functools.lru_cache(maxsize=64)
def make_stepper(model: Any, capacity: int, hypotheses: int) -> Stepper:
    def start(params: Params, inputs: Inputs, prompt: Tokens) -> Any:
        return model.apply(params, inputs, prompt, capacity, hypotheses, method=type(model).start)

    def step(params: Params, memory: Any, state: Any, token: jax.Array, t: jax.Array) -> Any:
        return model.apply(params, memory, state, token, t, method=type(model).step)

    return Stepper(jax.jit(start), jax.jit(step), jax.jit(model.reorder))


def step_agrees_with_features(s: Subject) -> float:
    """The logits of single steps equal those of the forced pass, after prompts of length 1 and of mixed lengths."""
    total, largest = s.prefix.ids.shape[1], 0.0
    logits, lengths = np.asarray(s.forward(s.params, s.inputs, s.prefix)), s.prefix.mask.sum(1)
    stepper = make_stepper(s.model, total, HYPOTHESES)
    for prompt_length in (1, 3):
        # The prompt of a row is its first tokens, up to the prompt length, right-aligned with pads on the left.
        prompt_lengths = np.minimum(lengths, prompt_length)
        positions = np.arange(prompt_length) - (prompt_length - prompt_lengths[:, None])
        ids = np.take_along_axis(s.prefix.ids, np.maximum(positions, 0), axis=1)
        memory, state = stepper.start(s.params, s.inputs, Tokens(ids, positions >= 0))
        for t in range(prompt_length - 1, total):
            row_positions = np.minimum(
                t - prompt_length + prompt_lengths, total - 1
            )  # positions in the rows, without pads
            token = np.take_along_axis(s.prefix.ids, row_positions[:, None], axis=1)
            step_logits, state = stepper.step(s.params, memory, state, np.repeat(token, HYPOTHESES, 1), np.int32(t))
            inside = row_positions < lengths
            for k in range(HYPOTHESES):
                gap = require_close(
                    np.asarray(step_logits)[inside, k],
                    logits[np.flatnonzero(inside), row_positions[inside]],
                    f"step {t} after a prompt of {prompt_length} against the forced pass",
                )
                largest = max(largest, gap)
    return largest


def reorder_follows_parents(s: Subject) -> None:
    """After a reorder, the next logits equal the logits of the reordered histories, computed from scratch."""
    steps, batch = 4, len(LENGTHS)
    stepper = make_stepper(s.model, s.prefix.ids.shape[1], HYPOTHESES)
    random = np.random.default_rng(0)
    memory, state = stepper.start(s.params, s.inputs, first_prompt(batch))
    histories = np.ones((batch, HYPOTHESES, steps), np.int32)
    histories[:, :, 1:] = random.integers(3, s.model.vocabulary, (batch, HYPOTHESES, steps - 1))
    rows = np.repeat(np.arange(batch), HYPOTHESES)
    for t in range(steps):
        step_logits, state = stepper.step(s.params, memory, state, histories[:, :, t], np.int32(t))
        prefixes = histories.reshape(-1, steps)
        expected = forced(s, s.params, rows, prefixes, np.ones(prefixes.shape, bool))[:, t]
        require_close(np.asarray(step_logits).reshape(expected.shape), expected, f"logits after {t} reorders")
        parents = random.integers(0, HYPOTHESES, (batch, HYPOTHESES)).astype(np.int32)
        state = stepper.reorder(state, parents)
        past = np.take_along_axis(histories, parents[..., None], axis=1)
        histories[:, :, : t + 1] = past[:, :, : t + 1]


def segments_are_apart(s: Subject) -> None:
    """Texts packed into one row have the same logits as in separate rows."""
    order = np.argsort(LENGTHS)
    texts = [s.prefix.ids[i][s.prefix.mask[i]] for i in order]
    ids = np.concatenate([*texts, [0, 0]]).astype(np.int32)[None]
    marks = np.concatenate([*(np.full(len(text), n + 1) for n, text in enumerate(texts)), [0, 0]]).astype(np.int32)[
        None
    ]
    row = Tokens(ids, marks > 0, segments=marks)
    require_close(outputs(s, None, row), outputs(s, None, rows_of(s.prefix, order)), "logits of packed texts")


def carry_continues_the_stream(s: Subject) -> None:
    """Two segments, the second with the carry of the first, have the features of one long segment."""
    whole = Tokens(s.prefix.ids, np.ones_like(s.prefix.mask))
    expected, _ = features_of(s.model, s.params, whole, None)
    cut = whole.ids.shape[1] // 2
    first, carry = features_of(s.model, s.params, columns_of(whole, slice(0, cut)), None)
    second, _ = features_of(s.model, s.params, columns_of(whole, slice(cut, None)), carry)
    require_close(np.concatenate([first, second], axis=1), expected, "features of two segments")
