"""Parameters, cost and receptive field of a model with its default sizes."""

import functools
from typing import Any

import jax

from seqlab.evaluation.cost import count
from seqlab.layers.nesting import blank_inputs, blank_tokens, with_fields
from seqlab.runs.parameters import init_model_parameters
from seqlab.types import Generator

VOCABULARY, CLASSES, FEATURES, LENGTH = 8000, 10, 2, 64


def model_facts(model: Any) -> str:
    """Returns a sentence with the number of parameters and the cost of a forward pass."""
    model = with_fields(model, vocabulary=VOCABULARY, classes=CLASSES, features=FEATURES)
    params = jax.eval_shape(functools.partial(init_model_parameters, model, 0))
    prefix = blank_tokens(1, LENGTH) if isinstance(model, Generator) else None
    outputs = functools.partial(model.apply, train=False, method="outputs")
    operations, _ = count(jax.make_jaxpr(outputs)(params, blank_inputs(model, 1, LENGTH), prefix))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return f"{size:,} parameters; {operations:.3g} operations."


def receptive_field(part: Any) -> str:
    """Returns the receptive field of a position of a model or an encoder, as a sentence."""
    return f"Receptive field: {'all' if part.receptive_field is None else f'{part.receptive_field:,}'} positions."
