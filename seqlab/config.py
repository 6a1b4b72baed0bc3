"""An experiment and its parts: frozen dataclasses. Every hyperparameter stands here or in a model, once."""

from dataclasses import dataclass, field
from typing import Any

from flax import linen as nn


@dataclass(frozen=True)
class Text:
    """How strings become ids."""

    kind: str = "bpe"
    """SentencePiece model: bpe, char or word."""
    size: int = 8000
    """Entries of the vocabulary, special tokens and bytes included; for char and word the most there may be."""
    joint: bool = True
    """One vocabulary for source and target."""
    sample: int = 1_000_000
    """Most examples that the vocabulary is learned from, evenly spread over the training data."""


@dataclass(frozen=True)
class Batching:
    """How examples become batches of few shapes."""

    tokens: int = 4096
    """Most tokens a batch, source and target, pads included."""
    buckets: int = 6
    """Most shapes, so most compilations, of a training batch."""
    max_length: int = 256
    """Examples with a longer side are left out, counted and reported."""
    max_ratio: float = 9.0
    """Pairs with a side this many times as long as the other are left out, counted and reported."""


@dataclass(frozen=True)
class Optimizer:
    """An optax transformation."""

    name: str = "adam"
    """adam, adamw, sgd, momentum, nesterov, rmsprop or adagrad."""
    beta1: float = 0.9
    """Decay of the first moment (adam, adamw); the momentum (momentum, nesterov)."""
    beta2: float = 0.98
    """Decay of the second moment (adam, adamw, rmsprop)."""
    epsilon: float = 1e-9
    weight_decay: float = 0.0
    """Decoupled weight decay (adamw), on matrices only."""
    clip: float = 1.0
    """Largest global norm of the gradient; 0 does not clip."""
    average: float = 0.0
    """Decay of a moving average of the parameters, which is then what is validated and decoded with; 0: none."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps of training, after a linear warm-up to `peak`."""

    name: str = "inverse_sqrt"
    """constant, inverse_sqrt, noam, cosine, linear or step."""
    peak: float = 1e-3
    """The highest rate; for noam a factor on `dim ** -0.5`."""
    warmup: int = 800
    """Steps of linear warm-up."""
    dim: int = 512
    """Width of the model in the noam formula (Vaswani et al. 2017, equation 3)."""
    every: int = 1000
    """step: the rate is multiplied by `decay` every so many steps."""
    decay: float = 0.5


@dataclass(frozen=True)
class Search:
    """How text is generated, in validation and by default afterwards."""

    beam: int = 5
    """Hypotheses kept a sentence; 1 is greedy search, by the preset seqlab."""
    preset: str = "seqlab"
    """What "beam search" means: seqlab, gnmt, fairseq, joey, marian, ct2 or hf (docs/search.md)."""
    length: str | None = None
    """What a sum of log-probabilities over n tokens is divided by: none, gnmt, ((5 + n) / 6) ** alpha, or power,
    n ** alpha. None: what the preset says."""
    alpha: float | None = None
    """Exponent of the length penalty. None: what the preset says, 0.6 for seqlab."""
    word_penalty: float = 0.0
    """What each token costs before the sum is divided."""
    coverage: float = 0.0
    """Weight of the coverage penalty: of parts of the source that attention has passed over."""
    groups: int = 1
    """The beam is of so many groups, that keep away from one another's tokens; 1 is a beam as usual."""
    diversity: float = 0.5
    """How far: what a token costs a group for each place of the groups before it that has chosen the token."""
    stop: str | None = None
    """When a sentence is done: optimal, first, full, bound, top, empty or slots. None: what the preset says."""
    max_length: int = 0
    """Most tokens to write, EOS included; 0: what the task says, for translation twice the source and 10 more."""
    max_ratio: float = 0.0
    """Most tokens to write, as a multiple of the source's; 0: no such bound."""
    min_length: int = 0
    """Fewest tokens to write, EOS included; 0: what the preset says."""
    min_ratio: float = 0.0
    """Fewest tokens to write, as a multiple of the source's."""
    no_repeat: int = 0
    """So many tokens in a row are not written twice; 0: any may be."""
    repetition: float = 1.0
    """Penalty of tokens that have been written: their scores, where negative, are multiplied by it."""
    forbid: tuple[str, ...] = ()
    """Texts that are never written, each a single token of the vocabulary."""
    sample: int | None = None
    """A seed: as many samples are drawn as the beam holds. None: search."""
    temperature: float = 1.0
    """Of samples: below 1 what is likely becomes likelier."""
    top_k: int = 0
    """Of samples: only the so many likeliest tokens may be drawn; 0: all."""
    top_p: float = 1.0
    """Of samples: only the likeliest tokens that have this share of the probability together."""
    batch_tokens: int = 1 << 16
    """Most positions of sources and hypotheses at once, a device; pads are included."""
    risk: str | None = None
    """Of samples: the best is that which is most like all the others, by chrf or bleu. None: the likeliest."""


@dataclass(frozen=True)
class Validation:
    """What is looked at during training, and what for."""

    every: int = 500
    """Steps between validations; each is followed by a checkpoint."""
    examples: int = 1000
    """Examples of the validation split used, the first ones."""
    metric: str = "loss"
    """What makes a checkpoint the best and stops early: loss, or a score of the task (bleu)."""
    beam: int = 1
    """Beam of the translations that are scored; 0 scores none and looks at the loss alone."""
    patience: int = 0
    """Validations without a better one before training stops; 0 never stops early."""


@dataclass(frozen=True)
class Checkpoints:
    """What is kept of a run."""

    last: int = 3
    """How many of the newest are kept, besides the best."""


@dataclass(frozen=True)
class Parallel:
    """How a step runs on several devices. None of it changes the batches, or results by more than rounding (but the
    masks of dropout under pmap), so a run may be gone on with on others.
    """

    name: str = "jit"
    """jit over a mesh, or pmap."""
    fsdp: int = 1
    """Devices that share each copy of the parameters and of the optimizer's state; rows are split over them too."""
    tensor: int = 1
    """Devices that share each product: heads, hidden units, the vocabulary."""
    heartbeat: int = 100
    """Seconds without a sign of life after which a process is given up by the others."""


@dataclass(frozen=True)
class Experiment:
    """One experiment: the objects that run, and all their numbers."""

    model: nn.Module
    task: Any
    data: Any
    steps: int = 10_000
    """Updates in all."""
    seed: int = 0
    """Of parameters, dropout and the order of batches."""
    accumulate: int = 1
    """Parts that a batch is worked on in, one after the other, so that activations of one alone are held at once."""
    nonfinite: str = "stop"
    """What to do where a loss or gradient is not finite: stop; skip, leave the update out; or rollback, go on from
    the last checkpoint without that batch."""
    log_every: int = 50
    """Steps between lines of the metrics log."""
    hash_every: int = 0
    """Steps between fingerprints of batch and state, for `seqlab bisect`; 0: none."""
    text: Text = field(default_factory=Text)
    batching: Batching = field(default_factory=Batching)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    search: Search = field(default_factory=Search)
    validation: Validation = field(default_factory=Validation)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    parallel: Parallel = field(default_factory=Parallel)
