"""The laws of models, encoders, readers and tasks, as functions that raise `LawBroken`.

The laws of `model_laws` take a `Subject`, a small model with parameters and ragged inputs. The laws of `task_laws`
take a task, `STEP_LAWS` nothing, and `RUN_LAWS` an empty folder. Values are compared by `require_equal` (bitwise) or
`require_close` (1e-5 relative to the largest entry, float32).
"""

from collections.abc import Callable
from typing import Any

import jax

from seqlab.codecs.symbols import Symbols
from seqlab.data.task import Task
from seqlab.laws.generators import (
    carry_continues_the_stream,
    future_is_unseen,
    past_matters,
    reorder_follows_parents,
    segments_are_apart,
    step_agrees_with_features,
)
from seqlab.laws.models import (
    dropout_acts_only_in_training,
    empty_rows_are_finite,
    four_examples_can_be_memorized,
    gradients_reach_every_parameter,
    input_matters,
    jit_agrees_with_eager,
    longer_padding_changes_nothing,
    pads_are_inert,
    rows_are_independent,
)
from seqlab.laws.search import (
    a_beam_that_holds_everything_is_exact,
    greedy_is_a_beam_of_one,
    returned_scores_are_the_models,
)
from seqlab.laws.subject import features_of, first_prompt
from seqlab.laws.tasks import (
    corruption_follows_the_draw,
    decoding_reads_what_training_reads,
    every_example_comes_once_an_epoch,
    filled_rows_weigh_nothing,
    rows_come_apart,
    targets_are_the_labels,
    targets_are_the_next_tokens,
    targets_are_the_numbers,
    targets_are_the_tags,
)
from seqlab.laws.training import devices_agree, resuming_changes_nothing
from seqlab.layers.head import EncoderHead
from seqlab.layers.nesting import readers_of
from seqlab.runs.parameters import init_model_parameters
from seqlab.types import Classifier, Encoder, Generator, Regressor, Tagger, Tokens

Law = Callable[..., Any]  # some laws return the largest measured difference

ANY_MODEL_LAWS: tuple[Law, ...] = (
    pads_are_inert,
    longer_padding_changes_nothing,
    rows_are_independent,
    empty_rows_are_finite,
    jit_agrees_with_eager,
    dropout_acts_only_in_training,
    gradients_reach_every_parameter,
    four_examples_can_be_memorized,
)

GENERATOR_LAWS: tuple[Law, ...] = (
    future_is_unseen,
    past_matters,
    step_agrees_with_features,
    reorder_follows_parents,
    returned_scores_are_the_models,
    a_beam_that_holds_everything_is_exact,
    greedy_is_a_beam_of_one,
)

ANSWER_LAWS: tuple[Law, ...] = (input_matters,)
LANGUAGE_MODEL_LAWS: tuple[Law, ...] = (segments_are_apart,)
CARRY_LAWS: tuple[Law, ...] = (carry_continues_the_stream,)
ANY_TASK_LAWS: tuple[Law, ...] = (every_example_comes_once_an_epoch, rows_come_apart, filled_rows_weigh_nothing)
GENERATOR_TASK_LAWS: tuple[Law, ...] = (targets_are_the_next_tokens,)
SOURCE_TASK_LAWS: tuple[Law, ...] = (decoding_reads_what_training_reads,)
CLASSIFIER_TASK_LAWS: tuple[Law, ...] = (targets_are_the_labels,)
TAGGER_TASK_LAWS: tuple[Law, ...] = (targets_are_the_tags,)
REGRESSOR_TASK_LAWS: tuple[Law, ...] = (targets_are_the_numbers,)
CORRUPTING_TASK_LAWS: tuple[Law, ...] = (corruption_follows_the_draw,)
STEP_LAWS: tuple[Law, ...] = (devices_agree,)
RUN_LAWS: tuple[Law, ...] = (resuming_changes_nothing,)


def model_laws(model: Any) -> tuple[Law, ...]:
    """Returns the laws that a model must obey."""
    if not isinstance(model, Generator):
        return ANY_MODEL_LAWS + ANSWER_LAWS + ((future_is_unseen,) if is_causal(model) else ())
    if readers_of(model):
        return ANY_MODEL_LAWS + GENERATOR_LAWS

    def carry_of(prefix: Tokens) -> Any:
        return features_of(model, init_model_parameters(model, 0), prefix, None)[1]

    carry = jax.eval_shape(carry_of, first_prompt(1))
    return ANY_MODEL_LAWS + GENERATOR_LAWS + LANGUAGE_MODEL_LAWS + (() if carry is None else CARRY_LAWS)


def is_causal(model: Any) -> bool:
    """Returns whether the outputs of a tagger or an encoder depend only on the past."""
    encoder = model.encoder if isinstance(model, Tagger) and isinstance(model, EncoderHead) else model
    return isinstance(encoder, Encoder) and encoder.causal


def task_laws(task: Task) -> tuple[Law, ...]:
    """Returns the laws that a task must obey."""
    return ANY_TASK_LAWS + content_laws(task)


def content_laws(task: Task) -> tuple[Law, ...]:
    """Returns the laws about the contents of a task's batches, which depend on its columns."""
    sources = [codec for name, codec in task.columns.items() if name != "label"]
    if task.corrupts:
        return CORRUPTING_TASK_LAWS
    if task.model is Generator:
        return GENERATOR_TASK_LAWS + (SOURCE_TASK_LAWS if "source" in task.columns else ())
    if task.model is Classifier and len(sources) == 1:
        return CLASSIFIER_TASK_LAWS
    if task.model is Tagger and all(isinstance(codec, Symbols) for codec in task.columns.values()):
        return TAGGER_TASK_LAWS
    return REGRESSOR_TASK_LAWS if task.model is Regressor else ()
