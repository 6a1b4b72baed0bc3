"""Axes, batch structs and the protocols that models obey.

Axes, as they appear in every shape annotation:

    B sentences    K hypotheses of a sentence    S source positions    T target positions    P encoder outputs
    D width        H heads    L layers           V vocabulary          C classes             F features
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

AnyArray = Any  # NumPy on the host, JAX on a device
Params = Any  # a nested dict of float32 arrays
Carry = Any  # what a recurrent language model hands to the next stretch of the same stream
Memory = Any  # per sentence: every leaf [B ...]
State = Any  # per hypothesis: every leaf [B ...]


@struct.dataclass
class Tokens:
    """A padded batch of token sequences: `ids` int [B T]; `mask` bool [B T], true where a token is real.

    `segments` int [B T], where a row holds several texts: which one a token is of, from 1 on; nothing passes from
    one to another. `sentences` int [B T], where a row is a document: which sentence a token is of, from 0 on.
    `types` int [B T], where a row is a pair of texts: which of the two a token is of, 0 or 1.
    """

    ids: AnyArray
    mask: AnyArray
    segments: AnyArray | None = None
    sentences: AnyArray | None = None
    types: AnyArray | None = None


@struct.dataclass
class Frames:
    """A padded batch of sequences of vectors: `values` float32 [B T F]; `mask` bool [B T], true where one is real."""

    values: AnyArray
    mask: AnyArray


@struct.dataclass
class Pixels:
    """A batch of images of one size: `values` [B rows columns channels]."""

    values: AnyArray


def has_mask(value: Any) -> bool:
    return isinstance(value, Tokens | Frames)


Inputs = Any  # Tokens, Frames, Pixels, or a tuple of them: every leaf [B ...]; None: a language model has none


@struct.dataclass
class Encoded:
    """What an encoder makes of inputs: `values` [B P D], one vector per position; `mask` bool [B P], true where a
    position is real; `summary` [B D], one vector for each row, whose width may differ; `layers` [L B P D], the
    outputs of all layers, for an encoder that gives them.
    """

    values: AnyArray
    mask: AnyArray
    summary: AnyArray
    layers: AnyArray | None = None


@struct.dataclass
class Batch:
    """What a model is trained on: `targets` and float32 `weights`, [B T] for a generator or a tagger, [B] for a
    classifier or a regressor, whose targets alone are float32 and not int.

    A weight is zero at a pad and in a filled-up row. `prefix`, for a generator alone, is the target shifted right;
    `inputs` is None for a language model. `fresh` bool [B], where rows are stretches of a stream: which of them
    begin one, so that no carry comes with them.
    """

    inputs: Inputs
    prefix: Tokens | None
    targets: AnyArray
    weights: AnyArray
    fresh: AnyArray | None = None


@runtime_checkable
class Model(Protocol):
    """The base of all protocols of models. A model inherits from its protocol, and so gets these defaults."""

    @property
    def longest(self) -> int | None:
        """The longest sequence that it can read; None: any."""
        return None

    @property
    def receptive_field(self) -> int | None:
        """How many positions an output can depend on; None: all."""
        return None

    @property
    def widest_kernel(self) -> int:
        """The positions that its widest convolution needs; 1: there is none."""
        return 1

    def paths(self, length: int) -> dict[str, int | None]:
        """For a side, the largest number of moves from a position to the last output; see `seqlab cost`."""
        return {}


@runtime_checkable
class Reader(Protocol):
    """A module that turns raw inputs into one vector per position, as the first part of a model or an encoder."""

    column: str
    """The column of the data that it reads. Sizes that are 0 in a config come from the column's codec: `vocabulary`,
    the number of its ids, and `features`, the last axis of its elements."""

    def read(self, inputs: Any, width: int, *, embed: Any = None) -> Any:
        """Returns vectors [B P D] and the mask of their positions [B P].

        D is `width` unless the reader has a width of its own. `embed`, a function from ids to vectors, takes the
        place of the reader's own table, where a model shares a table between source and target.
        """
        ...

    def blank(self, rows: int, length: int) -> Any:
        """Returns inputs of zeros, all real: enough to build a model with."""
        ...


@runtime_checkable
class Encoder(Model, Protocol):
    """A module that reads inputs, and is given a head to be a model."""

    @property
    def causal(self) -> bool:
        """Whether a position sees itself and the past alone."""
        ...

    def encode(self, inputs: Any, *, train: bool) -> Encoded:
        """Returns the vectors of all positions, and of the whole sequence."""
        ...


@runtime_checkable
class Generator(Model, Protocol):
    """A model that writes: language model, translation, summarization, dialogue.

    Every leaf of memory and state has B as its first axis, so that a sentence can leave the batch by one
    gather. Prompts are right-aligned, so the position `t` of a step is one scalar for the whole batch. `inputs` are
    those of a source, or None for a language model.
    """

    vocabulary: int

    @property
    def shares_table(self) -> bool:
        """Whether source and target share one table of embeddings, and so one vocabulary."""
        return False

    def features(self, inputs: Any, prefix: Tokens, carry: Carry = None, *, train: bool) -> Any:
        """Teacher forcing, all positions at once: ([B T D], carry)."""
        ...

    def project(self, features: jax.Array) -> jax.Array:
        """[... D] to float32 logits [... V]."""
        ...

    def start(self, inputs: Any, prompt: Tokens, capacity: int, hypotheses: int) -> Any:
        """Reads all of `prompt` [B P] but its last token: (memory, state with room for `capacity` positions)."""
        ...

    def step(self, memory: Memory, state: State, token: jax.Array, t: jax.Array) -> Any:
        """`token` [B K] is at position `t`: (logits [B K V] of the next token, state)."""
        ...

    def reorder(self, state: State, parents: jax.Array) -> State:
        """Hypothesis k of a sentence continues hypothesis `parents[b, k]`; `parents` int [B K]."""
        ...

    def grow(self, state: State, more: int) -> State:
        """The state with room for `more` positions; a state without a bound stays as it is."""
        return state

    def outputs(self, inputs: Any, prefix: Any = None, *, train: bool) -> jax.Array:
        """Float32 logits [B T V] of a forced pass."""
        return self.project(self.features(inputs, prefix, train=train)[0])


@runtime_checkable
class Classifier(Model, Protocol):
    """A model that names a class: document classification."""

    classes: int

    def classify(self, inputs: Any, *, train: bool) -> jax.Array:
        """Returns float32 logits [B C]."""
        ...

    def outputs(self, inputs: Any, prefix: None = None, *, train: bool) -> jax.Array:
        return self.classify(inputs, train=train)


@runtime_checkable
class Tagger(Model, Protocol):
    """A model that names a class at every position of its inputs: copy memory."""

    classes: int

    def tag(self, inputs: Any, *, train: bool) -> Any:
        """Returns float32 logits [B P C], and which positions are real [B P]."""
        ...

    def outputs(self, inputs: Any, prefix: None = None, *, train: bool) -> jax.Array:
        """Returns the logits, zero where a position is not real."""
        logits, mask = self.tag(inputs, train=train)
        return jnp.where(mask[..., None], logits, 0.0)


@runtime_checkable
class Regressor(Model, Protocol):
    """A model that gives a number: the adding problem."""

    def regress(self, inputs: Any, *, train: bool) -> jax.Array:
        """Returns float32 [B]."""
        ...

    def outputs(self, inputs: Any, prefix: None = None, *, train: bool) -> jax.Array:
        return self.regress(inputs, train=train)


@runtime_checkable
class Attentive(Generator, Protocol):
    """A generator that can tell its attention over the source."""

    def attention_weights(self, inputs: Tokens, prefix: Tokens) -> jax.Array:
        """The weights of a forced pass [L B H T P]."""
        ...

    def attentive_step(self, memory: Memory, state: State, token: jax.Array, t: jax.Array) -> Any:
        """`step`, and the mean weights [B K P] of its position."""
        ...


@runtime_checkable
class Counted(Protocol):
    """A model that is estimated by counting, not by gradients: n-grams."""

    def count(self, batches: Iterable[Any]) -> Params:
        """Returns the parameters, given all training batches once, in the order of the data."""
        ...


def kind_of(protocol: type) -> str:
    """The name of a protocol in messages: "generator" for `Generator`."""
    return protocol.__name__.lower()


@struct.dataclass
class Reference:
    """A frozen model with its parameters."""

    model: Any = struct.field(pytree_node=False)
    params: Params


@struct.dataclass
class Context:
    """What a loss depends on besides parameters and batch: the `key` that drives dropout, None in evaluation; the
    `carry` of the stretch before, if rows are stretches of a stream; and frozen models by name.
    """

    key: Any = None
    carry: Carry = None
    references: dict[str, Reference] = struct.field(default_factory=dict)


class Loss(NamedTuple):
    """The `sum` of a loss over a batch and the `weight` that it is divided by, in the end; the `sums` of metrics; the
    `carry` for the next stretch of a stream.
    """

    sum: jax.Array
    weight: jax.Array
    sums: dict[str, jax.Array]
    carry: Carry = None


@struct.dataclass
class TrainState:
    """All that training changes. `sums` adds up the metrics since the log was last written; `average` is a moving
    average of the parameters, if there is one.
    """

    step: AnyArray
    params: Params
    optimizer: Any
    carry: Carry
    sums: dict[str, AnyArray]
    average: Params = None
