"""Laws of all models: padding, rows, dropout, gradients and learning."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqlab import catalogue
from seqlab.laws.equality import require, require_close, require_equal
from seqlab.laws.subject import LENGTHS, Subject, logits_of, outputs, rows_of
from seqlab.layers.nesting import join_inputs, modules_in, readers_of, with_fields
from seqlab.training.step import STEP_SUMS, make_step
from seqlab.types import (
    Batch,
    Classifier,
    Context,
    Generator,
    Params,
    Regressor,
    Tagger,
    Tokens,
    TrainState,
    has_mask,
)


def pads_are_inert(s: Subject) -> None:
    """Arbitrary values in pads do not change the outputs, bitwise."""

    def fill_pads(tokens: Any) -> Any:
        mask = tokens.mask
        return jax.tree.map(
            lambda x: np.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, x.dtype.type(5)), tokens
        ).replace(mask=mask)

    dirty = (change_masked(side, fill_pads) for side in (s.inputs, s.prefix))
    require_equal(outputs(s, s.inputs, s.prefix), outputs(s, *dirty), "logits with arbitrary values in pads")


def longer_padding_changes_nothing(s: Subject) -> None:
    """Three more pads per row do not change the logits."""

    def pad(tokens: Any) -> Any:
        return jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 3), *[(0, 0)] * (x.ndim - 2))), tokens)

    logits = outputs(s, change_masked(s.inputs, pad), change_masked(s.prefix, pad))
    require_close(logits, outputs(s, s.inputs, s.prefix), "logits with longer padding")


def rows_are_independent(s: Subject) -> None:
    """Permuted rows have permuted logits, and a row alone has the same logits as in a batch."""
    logits = np.asarray(s.forward(s.params, s.inputs, s.prefix))
    order = np.arange(len(LENGTHS))[::-1]  # reversed: a rotation would hide that a row reads its neighbor
    require_close(
        s.forward(s.params, rows_of(s.inputs, order), rows_of(s.prefix, order)), logits[order], "permuted rows"
    )
    single = slice(2, 3)
    require_close(
        s.forward(s.params, rows_of(s.inputs, single), rows_of(s.prefix, single)), logits[single], "a row alone"
    )


def empty_rows_are_finite(s: Subject) -> None:
    """A row without real tokens has finite logits and gradients, and does not change other rows."""
    mask = np.ones((len(LENGTHS), 1), bool)
    mask[0] = False

    def empty_first_row(tokens: Any) -> Any:
        return tokens.replace(mask=tokens.mask & mask)

    inputs, prefix = (change_masked(side, empty_first_row) for side in (s.inputs, s.prefix))
    logits = np.asarray(s.forward(s.params, inputs, prefix))
    require(np.isfinite(logits).all(), "the logits with an empty row are not finite")
    require_close(logits[1:], np.asarray(s.forward(s.params, s.inputs, s.prefix))[1:], "rows next to an empty row")
    weights = s.weights * mask.reshape(-1, *[1] * (s.weights.ndim - 1)).astype(np.float32)
    gradients = s.gradient(s.params, inputs, prefix, s.targets, weights)
    finite = [np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(gradients)]
    require(all(finite), "the gradients with an empty row are not finite")


def input_matters(s: Subject) -> None:
    """Different inputs have different outputs."""
    changed = changed_inputs(s, slice(None))
    before, after = outputs(s, s.inputs, None), outputs(s, changed, None)
    effect = abs(after - before).reshape(len(before), -1).max(-1)
    require((effect > 1e-6 * abs(before).max()).all(), "changing the input has no effect")


def changed_inputs(s: Subject, positions: slice) -> Any:
    """Returns the inputs of a subject, with others at some positions."""

    def changed(reader: Any, inputs: Any) -> Any:
        if not isinstance(inputs, Tokens):
            values = inputs.values.copy()
            values[:, positions] += 1.0
            return dataclasses.replace(inputs, values=values)
        ids = inputs.ids.copy()
        ids[:, positions] = (ids[:, positions] + 1) % reader.vocabulary
        return dataclasses.replace(inputs, ids=ids)

    readers = readers_of(s.model).values()
    sides = s.inputs if isinstance(s.inputs, tuple) else (s.inputs,)
    return join_inputs([changed(reader, side) for reader, side in zip(readers, sides, strict=True)])


def change_masked(inputs: Any, change: Callable[[Any], Any]) -> Any:
    """Returns inputs with a change to each `Tokens` and `Frames`; images and None stay as they are."""
    return jax.tree.map(lambda x: change(x) if has_mask(x) else x, inputs, is_leaf=has_mask)


def jit_agrees_with_eager(s: Subject) -> None:
    """The logits of the compiled function and of op-by-op execution agree."""
    inputs, prefix = jax.tree.map(jnp.asarray, (s.inputs, s.prefix))
    eager = logits_of(s.model, s.params, inputs, prefix)
    require_close(s.forward(s.params, s.inputs, s.prefix), eager, "jit and eager")


def dropout_acts_only_in_training(s: Subject) -> None:
    """In evaluation the dropout key has no effect; in training two keys give different results."""
    model = with_fields(s.model, dropout=0.5)

    @jax.jit
    def run(params: Params, inputs: Any, prefix: Any, key: Any) -> Any:
        return [logits_of(model, params, inputs, prefix, key, train=train) for train in (False, True)]

    (evaluated, trained), (evaluated_again, trained_again) = (
        run(s.params, s.inputs, s.prefix, jax.random.key(n)) for n in (1, 2)
    )
    require_equal(evaluated, evaluated_again, "evaluation with two dropout keys")
    moved = np.abs(np.asarray(trained) - np.asarray(trained_again)).max()
    require(moved > 1e-3, "training with two dropout keys gives the same result")


def gradients_reach_every_parameter(s: Subject) -> None:
    """The largest entry of each leaf's gradient is above 1e-6 of the global norm, except in `zero_gradients`."""
    zeros = zero_gradients(s.model)
    gradients = jax.tree.map(np.asarray, s.gradient(s.params, s.inputs, s.prefix, s.targets, s.weights))
    norm = np.sqrt(sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(gradients)))
    for path, gradient in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        name = jax.tree_util.keystr(path)
        if not any(zero in name for zero in zeros):
            require(np.abs(gradient).max() > 1e-6 * norm, f"no gradient reaches {name}")


def zero_gradients(model: Any) -> list[str]:
    """Returns parts of the paths of the leaves whose gradient is zero by construction, which the files of a model and
    of its modules list in ZERO_GRADIENTS.
    """
    files = [sys.modules[type(module).__module__] for _, module in modules_in(model)]
    return [name for file in files for name in getattr(file, "ZERO_GRADIENTS", ())]


def four_examples_can_be_memorized(s: Subject) -> None:
    """A hundred steps of Adam through `make_step` reduce the loss of four rows to less than a tenth."""
    batch = rows_of(Batch(s.inputs, s.prefix, s.targets, s.weights), slice(0, 4))
    model = with_fields(s.model, dropout=0.0)
    tasks = {Classifier: "classification", Tagger: "tagging", Regressor: "regression", Generator: "language_modeling"}
    name = next(name for protocol, name in tasks.items() if isinstance(model, protocol))
    task = catalogue.part_class("tasks", name)()
    loss = functools.partial(task.loss, model)
    optimizer = optax.adam(3e-2)
    step = jax.jit(make_step(loss, optimizer, 0))
    losses = [0.0]
    sums = jax.eval_shape(loss, s.params, batch, Context(jax.random.key(0))).sums
    state = first_state(s.params, optimizer, tuple(sums))
    for _ in range(100):
        state, _ = step(state, batch)
        losses.append(float(state.sums["loss"]))
    first, last = losses[1] - losses[0], losses[-1] - losses[-2]
    require(last < 0.1 * first, f"in 100 steps the loss of four rows went from {first:.3g} to {last:.3g}")


def first_state(params: Params, optimizer: optax.GradientTransformation, sums: tuple[str, ...]) -> TrainState:
    """Returns the state at step 0 for an optimizer whose initial state is zero."""
    moments = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(optimizer.init, params))
    return TrainState(np.int32(0), params, moments, None, {name: np.float32(0) for name in (*STEP_SUMS, *sums)})
