"""Axes, batch structs, and the protocols that models implement.

Axes in shape annotations:

    B sentences    K hypotheses of a sentence    S source positions    T target positions    P encoder outputs
    D width        H heads    L layers           V vocabulary          C classes             F features
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

AnyArray = Any  # NumPy on the host, JAX on a device
Params = Any  # a nested dict of float32 arrays
Carry = Any  # the state that a recurrent language model passes to the next segment of the same stream
Memory = Any  # per sentence: every leaf [B ...]
State = Any  # per hypothesis: every leaf [B ...]


@struct.dataclass
class Tokens:
    """A padded batch of token sequences: `ids` int [B T]; `mask` bool [B T], true for real tokens.

    `segments` int [B T]: the number of each token's text, from 1, where a row contains several texts; no information
    passes between texts. `sentences` int [B T]: the number of each token's sentence, from 0, where a row is a
    document. `types` int [B T]: 0 or 1, the text of each token, where a row is a pair of texts.
    """

    ids: AnyArray
    mask: AnyArray
    segments: AnyArray | None = None
    sentences: AnyArray | None = None
    types: AnyArray | None = None


@struct.dataclass
class Frames:
    """A padded batch of sequences of vectors: `values` float32 [B T F]; `mask` bool [B T], true for real vectors."""

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
    """The output of an encoder: `values` [B P D], one vector per position; `mask` bool [B P], true for real
    positions; `summary` [B D], one vector per row, whose width may differ; `layers` [L B P D], the outputs of all
    layers, if the encoder returns them.
    """

    values: AnyArray
    mask: AnyArray
    summary: AnyArray
    layers: AnyArray | None = None


@struct.dataclass
class Batch:
    """A training batch: `targets` and float32 `weights`, [B T] for a generator or a tagger, [B] for a classifier or a
    regressor. Targets are int, except those of a regressor, which are float32.

    Weights are zero at pads and in rows that fill up a batch. `prefix`, for generators only, is the target shifted
    right; `inputs` is None for a language model. `fresh` bool [B], where rows are segments of streams: true for a row
    that begins a stream and so has no carry.
    """

    inputs: Inputs
    prefix: Tokens | None
    targets: AnyArray
    weights: AnyArray
    fresh: AnyArray | None = None


@runtime_checkable
class Model(Protocol):
    """The base of all model protocols. A model inherits from its protocol, which provides these defaults."""

    @property
    def longest(self) -> int | None:
        """The maximum length of a sequence that the model can read; None: unlimited."""
        return None

    @property
    def receptive_field(self) -> int | None:
        """The number of positions that an output can depend on; None: all."""
        return None

    @property
    def widest_kernel(self) -> int:
        """The kernel size of the widest convolution; 1 if there is none."""
        return 1

    def paths(self, length: int) -> dict[str, int | None]:
        """Returns, for each side, the maximum path length from any position to the last output; see `seqlab cost`."""
        return {}


@runtime_checkable
class Reader(Protocol):
    """A module that turns raw inputs into one vector per position: the first part of a model or an encoder."""

    column: str
    """Data column that the module reads. Sizes that are 0 in a config are set from the column's codec: `vocabulary`
    to the number of its ids, `features` to the size of the last axis of its elements."""

    def read(self, inputs: Any, width: int, *, embed: Any = None) -> Any:
        """Returns vectors [B P D] and the mask of their positions [B P].

        D is `width` unless the reader sets its own width. `embed`, a function from ids to vectors, replaces the
        reader's own table in a model that shares one table between source and target.
        """
        ...

    def blank(self, rows: int, length: int) -> Any:
        """Returns inputs of zeros without padding, sufficient to initialize a model."""
        ...


@runtime_checkable
class Encoder(Model, Protocol):
    """A module that encodes inputs; a head on top of it makes a model."""

    @property
    def causal(self) -> bool:
        """Whether each position depends only on itself and earlier positions."""
        ...

    def encode(self, inputs: Any, *, train: bool) -> Encoded:
        """Returns one vector per position and one for the whole sequence."""
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder of tokens that also scores tokens, with the embedding table of its inputs."""

    def project(self, values: jax.Array) -> jax.Array:
        """Maps vectors [... D] to float32 logits [... V] over the vocabulary of its reader."""
        ...


@runtime_checkable
class Generator(Model, Protocol):
    """A model that generates text: language modeling, translation, summarization, dialogue.

    B is the first axis of every leaf of memory and state, so one gather removes a sentence from the batch. Prompts
    are right-aligned, so the position `t` of a step is one scalar for the whole batch. `inputs` are the inputs of the
    source, or None for a language model.
    """

    vocabulary: int

    @property
    def shares_table(self) -> bool:
        """Whether source and target share one embedding table, and therefore one vocabulary."""
        return False

    def features(self, inputs: Any, prefix: Tokens, carry: Carry = None, *, train: bool) -> Any:
        """Runs the model with teacher forcing, all positions at once. Returns ([B T D], carry)."""
        ...

    def project(self, features: jax.Array) -> jax.Array:
        """Maps features [... D] to float32 logits [... V]."""
        ...

    def start(self, inputs: Any, prompt: Tokens, capacity: int, hypotheses: int) -> Any:
        """Reads `prompt` [B P] except its last token. Returns (memory, state with room for `capacity` positions)."""
        ...

    def step(self, memory: Memory, state: State, token: jax.Array, t: jax.Array) -> Any:
        """Reads `token` [B K] at position `t`. Returns (logits [B K V] of the next token, state)."""
        ...

    def reorder(self, state: State, parents: jax.Array) -> State:
        """Returns the state in which hypothesis k of sentence b continues hypothesis `parents[b, k]`; `parents` is
        int [B K].
        """
        ...

    def grow(self, state: State, more: int) -> State:
        """Returns the state with room for `more` positions; by default, returns it unchanged."""
        return state

    def outputs(self, inputs: Any, prefix: Any = None, *, train: bool) -> jax.Array:
        """Returns float32 logits [B T V] of a forced pass."""
        return self.project(self.features(inputs, prefix, train=train)[0])


@runtime_checkable
class Classifier(Model, Protocol):
    """A model that predicts a class for each sequence: document classification."""

    classes: int

    def classify(self, inputs: Any, *, train: bool) -> jax.Array:
        """Returns float32 logits [B C]."""
        ...

    def outputs(self, inputs: Any, prefix: None = None, *, train: bool) -> jax.Array:
        return self.classify(inputs, train=train)


@runtime_checkable
class MixingClassifier(Classifier, Protocol):
    """A classifier of one vector per sequence, which can also classify mixtures of these vectors."""

    def classify_mixtures(self, inputs: Any, partners: jax.Array, share: jax.Array, *, train: bool) -> jax.Array:
        """Returns float32 logits [B C] of `share` times the vector of each row, plus 1 - `share` times the vector of
        the row `partners` [B].
        """
        ...


@runtime_checkable
class Tagger(Model, Protocol):
    """A model that predicts a class at every position: tagging, the copy memory task."""

    classes: Any  # int: a field, or a property of a model whose classes are tokens

    def tag(self, inputs: Any, *, train: bool) -> Any:
        """Returns float32 logits [B P C] and the mask of real positions [B P]."""
        ...

    def outputs(self, inputs: Any, prefix: None = None, *, train: bool) -> jax.Array:
        """Returns the logits, set to zero at pads."""
        logits, mask = self.tag(inputs, train=train)
        return jnp.where(mask[..., None], logits, 0.0)


@runtime_checkable
class MaskedPredictor(Tagger, Protocol):
    """A tagger whose classes are tokens. It can score some positions alone, which is much faster."""

    def predict_tokens(self, inputs: Any, places: jax.Array, *, train: bool) -> Any:
        """Returns float32 logits [B M V] of the tokens at the positions `places` [B M], and logits [B] that are
        positive if the second text of a row is likely to follow the first.
        """
        ...


@runtime_checkable
class SpanPredictor(Tagger, Protocol):
    """A tagger with two classes, whose logits score each position as the first and as the last one of a span."""

    def predict_span(self, inputs: Any, *, train: bool) -> Any:
        """Returns float32 logits [B P 2] and the mask of real positions [B P]."""
        ...

    def tag(self, inputs: Any, *, train: bool) -> Any:
        return self.predict_span(inputs, train=train)


@runtime_checkable
class Regressor(Model, Protocol):
    """A model that predicts a number for each sequence: the adding problem."""

    def regress(self, inputs: Any, *, train: bool) -> jax.Array:
        """Returns float32 numbers [B]."""
        ...

    def outputs(self, inputs: Any, prefix: None = None, *, train: bool) -> jax.Array:
        return self.regress(inputs, train=train)


@runtime_checkable
class Attentive(Generator, Protocol):
    """A generator that returns its attention weights over the source."""

    def attention_weights(self, inputs: Tokens, prefix: Tokens) -> jax.Array:
        """Returns the attention weights of a forced pass [L B H T P]."""
        ...

    def attentive_step(self, memory: Memory, state: State, token: jax.Array, t: jax.Array) -> Any:
        """Like `step`, but also returns the mean attention weights [B K P] at the position."""
        ...


@runtime_checkable
class Counted(Protocol):
    """A model that is estimated by counting instead of by gradient descent: n-grams."""

    def count(self, batches: Iterable[Any]) -> Params:
        """Returns the parameters, given each training batch once, in data order."""
        ...


def kind_of(protocol: type) -> str:
    """Returns the name of a protocol for messages: "masked predictor" for `MaskedPredictor`."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", protocol.__name__).lower()


@struct.dataclass
class Reference:
    """A frozen model with its parameters."""

    model: Any = struct.field(pytree_node=False)
    params: Params


@struct.dataclass
class Context:
    """The inputs of a loss besides parameters and batch: the dropout `key`, None in evaluation; the `carry` of the
    preceding segment, if rows are segments of streams; and frozen models by name.
    """

    key: Any = None
    carry: Carry = None
    references: dict[str, Reference] = struct.field(default_factory=dict)


class Loss(NamedTuple):
    """The `sum` of a loss over a batch, and the `weight` that divides it after accumulation; the `sums` of metrics;
    the `carry` for the next segment of a stream.
    """

    sum: jax.Array
    weight: jax.Array
    sums: dict[str, jax.Array]
    carry: Carry = None


@struct.dataclass
class TrainState:
    """The state that training updates. `sums` accumulates metrics since the last log entry; `average` is the
    average of the parameters (`optimizer.average` or `average_from`), if one is maintained.
    """

    step: AnyArray
    params: Params
    optimizer: Any
    carry: Carry
    sums: dict[str, AnyArray]
    average: Params = None
