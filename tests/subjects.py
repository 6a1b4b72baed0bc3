"""Small models that tests share. Each is initialized once per process, and its passes are compiled once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from seqlab import catalogue
from seqlab.laws.subject import Subject, make_subject
from seqlab.types import Batch, Generator

GENERATORS = [
    name for name in catalogue.names("models") if isinstance(catalogue.module("models", name).TINY, Generator)
]


@functools.cache
def subject(name: str, seed: int = 0, **changes: Any) -> Subject:
    """Returns a subject for the TINY of a model, with some fields changed."""
    return make_subject(catalogue.module("models", name).TINY.clone(**changes), seed)


def batch_of(s: Subject) -> Batch:
    """Returns the batch of a subject as device arrays, for functions that are not compiled."""
    return jax.tree.map(jnp.asarray, Batch(s.inputs, s.prefix, s.targets, s.weights))
