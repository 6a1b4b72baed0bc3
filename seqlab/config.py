"""An experiment and its settings: frozen dataclasses that check the values of their fields. Each hyperparameter is
defined once, here or in a part.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from seqlab.system.checks import (
    check_choice,
    check_fraction,
    check_minimums,
    check_nonnegative,
    check_pattern,
    check_types,
)
from seqlab.system.errors import SeqlabError

OPTIMIZERS = ("adam", "adamw", "sgd", "momentum", "nesterov", "rmsprop", "adagrad")
SCHEDULES = ("constant", "inverse_sqrt", "noam", "cosine", "linear", "step")
PRESET_NAMES = ("seqlab", "gnmt", "fairseq", "joey", "marian", "ct2", "hf")
LENGTH_PENALTIES = ("none", "gnmt", "power")
STOP_RULES = ("optimal", "first", "full", "bound", "top", "empty", "slots")
RISKS = ("chrf", "bleu")
MAX_BEAM = 10_000
MAX_POSITIONS = 1 << 16  # positions of sources and hypotheses in a batch; longer lines form smaller batches
MAX_TOKENS = 1 << 13  # tokens of a text if the model has no limit; memory grows with the square of a source


@dataclass(frozen=True)
class Text:
    """How text is converted to token ids."""

    kind: str = "bpe"
    """SentencePiece model: bpe, char or word."""
    size: int = 8000
    """Size of the vocabulary, including special tokens and bytes; for char and word, the maximum size."""
    joint: bool = True
    """Use one vocabulary for source and target."""
    lowercase: bool = False
    """Fold case and compatibility characters (NFKC). Decoded texts are in lower case."""
    sample: int = 1_000_000
    """Maximum number of training examples to learn the vocabulary from, evenly spread over the data."""

    def __post_init__(self) -> None:
        check_types(self, "text.")
        check_choice("text.kind", self.kind, ("bpe", "char", "word"))
        check_minimums(self, "text.", sample=1)


@dataclass(frozen=True)
class Batching:
    """How examples are grouped into batches. Fewer shapes mean fewer compilations."""

    tokens: int = 4096
    """Maximum number of tokens in a batch, source plus target, padding included."""
    buckets: int = 6
    """Maximum number of shapes of training batches. Each shape is compiled once."""
    max_length: int = 256
    """Maximum number of tokens in a source or target. Longer training examples are skipped and counted."""
    max_ratio: float = 9.0
    """Maximum length ratio of a training pair. Pairs above it are skipped and counted."""
    curriculum: int = 0
    """Number of epochs with only the easiest examples, whose share grows linearly (Platanios et al. 2019); 0: all."""
    difficulty: str = ""
    """Numeric column of the training data that orders the examples of the curriculum; empty: their length."""

    def __post_init__(self) -> None:
        check_types(self, "batching.")
        check_minimums(self, "batching.", tokens=1, buckets=1, max_length=1, max_ratio=1, curriculum=0)


@dataclass(frozen=True)
class Optimizer:
    """Optimizer settings."""

    name: str = "adam"
    """Optimizer: adam, adamw, sgd, momentum, nesterov, rmsprop or adagrad."""
    beta1: float = 0.9
    """Decay of the first moment (adam, adamw), or the momentum (momentum, nesterov)."""
    beta2: float = 0.98
    """Decay of the second moment (adam, adamw, rmsprop)."""
    epsilon: float = 1e-9
    """Small number added to the denominator of the update (adam, adamw, rmsprop, adagrad)."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices (adamw)."""
    clip: float = 1.0
    """Maximum global norm of the gradient; 0: no clipping."""
    average: float = 0.0
    """Decay of a moving average of the parameters, which validation and decoding use; 0: no average."""
    average_from: int = 0
    """Step from which an equal-weight mean of the parameters is maintained (Izmailov et al. 2018),
    which validation and decoding use; 0: no mean."""
    l1: float = 0.0
    """Coefficient of the L1 norm of matrices in the objective. The reported loss does not contain it."""
    trainable: str = ""
    """Train only the parameters whose path contains a match of this regular expression.
    Empty: train all parameters, or only those that a parametrization adds, if it adds any."""
    rates: tuple[tuple[str, float], ...] = ()
    """Multipliers of the learning rate: pairs of a regular expression and a factor.
    The first expression that matches a parameter's path applies."""
    depth_decay: float = 1.0
    """Factor of the learning rate for each layer above a parameter in its stack (Howard & Ruder 2018); 1: no change.
    Embeddings and readers are below all layers. Heads keep their rate."""
    unfreeze: tuple[tuple[str, int], ...] = ()
    """Gradual unfreezing: pairs of a regular expression and the first step that trains the matching parameters.
    The first expression that matches a parameter's path applies."""

    def __post_init__(self) -> None:
        check_types(self, "optimizer.")
        check_pattern("optimizer.trainable", self.trainable)
        for pattern, rate in self.rates:
            check_pattern("optimizer.rates", pattern)
            if not 0 < rate < math.inf:
                raise SeqlabError(f"optimizer.rates: the factor of {pattern!r} must be above 0, not {rate}")
        for pattern, first in self.unfreeze:
            check_pattern("optimizer.unfreeze", pattern)
            if first < 2:
                raise SeqlabError(f"optimizer.unfreeze: the step of {pattern!r} must be at least 2, not {first}")
        if not 0 < self.depth_decay <= 1:
            raise SeqlabError(f"optimizer.depth_decay must be above 0 and at most 1, not {self.depth_decay}")
        check_choice("optimizer.name", self.name, OPTIMIZERS)
        check_minimums(self, "optimizer.", clip=0, average_from=0)
        check_fraction("optimizer.beta1", self.beta1)
        check_fraction("optimizer.beta2", self.beta2)
        check_nonnegative("optimizer.epsilon", self.epsilon)
        check_nonnegative("optimizer.weight_decay", self.weight_decay)
        check_nonnegative("optimizer.l1", self.l1)
        check_fraction("optimizer.average", self.average)
        if self.average and self.average_from:
            raise SeqlabError("optimizer.average and optimizer.average_from are two averages: leave out one of them")
        if not math.isfinite(self.clip):
            raise SeqlabError(f"optimizer.clip must be a finite number, not {self.clip}")


@dataclass(frozen=True)
class Schedule:
    """The learning rate: a linear warm-up to `peak`, followed by the curve that `name` selects."""

    name: str = "inverse_sqrt"
    """Curve after the warm-up: constant, inverse_sqrt, noam, cosine, linear or step."""
    peak: float = 1e-3
    """Highest learning rate; for noam, the factor that multiplies `dim ** -0.5`."""
    warmup: int = 800
    """Number of steps of linear warm-up."""
    dim: int = 512
    """Width of the model in the noam formula (Vaswani et al. 2017, equation 3)."""
    every: int = 1000
    """Number of steps between decays of the step schedule."""
    decay: float = 0.5
    """Factor by which the step schedule multiplies the learning rate."""

    def __post_init__(self) -> None:
        check_types(self, "schedule.")
        check_choice("schedule.name", self.name, SCHEDULES)
        check_minimums(self, "schedule.", every=1, warmup=0, dim=1)
        check_nonnegative("schedule.peak", self.peak)
        check_nonnegative("schedule.decay", self.decay)


@dataclass(frozen=True)
class Search:
    """How text is generated during validation, and by default in decoding."""

    beam: int = 5
    """Beam width: number of hypotheses per sentence; 1: greedy search."""
    preset: str = "seqlab"
    """Rules of the beam search: seqlab, gnmt, fairseq, joey, marian, ct2 or hf (docs/guides/search.md)."""
    length: str | None = None
    """Length penalty for n tokens: none, gnmt (divide by ((5 + n) / 6) ** alpha) or power (divide by n ** alpha).
    None: the penalty of the preset."""
    alpha: float | None = None
    """Exponent of the length penalty. None: the exponent of the preset, 0.6 for seqlab."""
    word_penalty: float = 0.0
    """Penalty per token, subtracted before the division by the length penalty."""
    coverage: float = 0.0
    """Weight of the coverage penalty for parts of the source that receive little attention."""
    groups: int = 1
    """Number of groups of a diverse beam search; 1: a plain beam search."""
    diversity: float = 0.5
    """Penalty subtracted from the score of a token
    for each hypothesis of an earlier group that chose the token at the same step."""
    stop: str | None = None
    """Rule that ends a search: optimal, first, full, bound, top, empty or slots (docs/guides/search.md).
    None: the rule of the preset."""
    max_length: int = 0
    """Maximum number of tokens in an output, EOS included;
    0: the limit of the task (for translation, twice the source length plus 10)."""
    max_ratio: float = 0.0
    """Maximum number of tokens in an output, as a multiple of the source length; 0: no limit."""
    min_length: int = 0
    """Minimum number of tokens in an output, EOS included; 0: the minimum of the preset."""
    min_ratio: float = 0.0
    """Minimum number of tokens in an output, as a multiple of the source length."""
    no_repeat: int = 0
    """Length of n-grams that a text must not repeat; 0: no restriction."""
    repetition: float = 1.0
    """Repetition penalty: a factor for the negative scores of tokens that the prompt or the text already contains;
    1: no penalty."""
    forbid: tuple[str, ...] = ()
    """Words that are never generated, each a single token of the vocabulary."""
    sample: int | None = None
    """Random seed. If it is set, draw `beam` samples instead of searching. None: search."""
    temperature: float = 1.0
    """Sampling temperature. Values below 1 favor likely tokens."""
    top_k: int = 0
    """Sample only from the `top_k` most likely tokens; 0: all."""
    top_p: float = 1.0
    """Sample only from the most likely tokens whose probabilities add up to `top_p`; 1: all."""
    batch_tokens: int = MAX_POSITIONS
    """Maximum number of source and hypothesis positions per batch and device, padding included."""
    risk: str | None = None
    """Minimum Bayes risk decoding: choose the sample that is most similar to the others, by chrf or bleu.
    None: choose the most likely sample."""

    def __post_init__(self) -> None:
        check_types(self, "search.")
        self.check_beam()
        self.check_lengths()
        self.check_sampling()

    def check_beam(self) -> None:
        if self.beam < 1:
            raise SeqlabError(f"beam must be at least 1, not {self.beam}")
        if self.beam > MAX_BEAM:
            raise SeqlabError(f"beam must be at most {MAX_BEAM:,}, not {self.beam:,}")
        check_choice("preset", self.preset, PRESET_NAMES)
        if self.length is not None:
            check_choice("length", self.length, LENGTH_PENALTIES)
        if self.stop is not None:
            check_choice("stop", self.stop, STOP_RULES)
        for name in ("alpha", "word_penalty", "coverage", "diversity"):
            value = getattr(self, name)
            if value is not None and not abs(value) < 1e6:
                raise SeqlabError(f"{name} must be between -1,000,000 and 1,000,000, not {value}")
        check_minimums(self, "", coverage=0, diversity=0, groups=1, batch_tokens=1, no_repeat=0)
        if self.alpha and self.length == "none":
            raise SeqlabError(
                "alpha is the exponent of the length penalty, but length is none: leave out alpha or change length"
            )
        if self.groups == 1 and self.diversity != Search.diversity:
            raise SeqlabError("diversity is a penalty between groups: set groups to 2 or more")
        if self.coverage and (self.beam == 1 or self.sample is not None):
            raise SeqlabError("coverage needs beam search: set beam to 2 or more, and leave out sample")
        if self.beam % self.groups:
            raise SeqlabError(f"beam must be a multiple of groups: {self.beam} is not a multiple of {self.groups}")
        if not 0 < self.repetition < 1e6:
            raise SeqlabError(f"repetition must be above 0 and below 1,000,000, not {self.repetition}; 1: no penalty")

    def check_lengths(self) -> None:
        if self.max_length < 0:
            raise SeqlabError(f"max_length must be at least 1, not {self.max_length}")
        check_minimums(self, "", min_length=0, max_ratio=0, min_ratio=0)
        if max(self.max_length, self.min_length) > MAX_TOKENS:
            raise SeqlabError(
                f"an output can have at most {MAX_TOKENS} tokens, not {max(self.max_length, self.min_length)}: lower "
                "max_length or min_length"
            )
        if self.max_length and self.min_length > self.max_length:
            raise SeqlabError(f"min_length {self.min_length} is above max_length {self.max_length}: lower min_length")
        if self.min_ratio > self.max_ratio > 0:
            raise SeqlabError(f"min_ratio {self.min_ratio} is above max_ratio {self.max_ratio}: lower min_ratio")

    def check_sampling(self) -> None:
        if self.risk is not None and self.risk not in RISKS:
            raise SeqlabError(f"risk must be one of {', '.join(RISKS)}, not {self.risk!r}")
        if self.sample is not None and self.groups > 1:
            raise SeqlabError("groups divide a beam, but samples have no beam: leave out groups or sample")
        if self.risk is not None and self.beam == 1:
            raise SeqlabError("risk chooses among samples: set beam to 2 or more")
        if self.sample is not None and self.stop is not None:
            raise SeqlabError("stop ends a beam search, but samples have no beam: leave out stop or sample")
        usual = {"temperature": 1, "top_k": 0, "top_p": 1, "risk": None}
        changed = next((name for name, value in usual.items() if getattr(self, name) != value), None)
        if self.sample is None and changed is not None:
            raise SeqlabError(f"{changed} needs samples: give a seed, such as --sample 1")
        if self.sample is not None and not 0 <= self.sample < 1 << 31:
            raise SeqlabError(f"sample must be a seed from 0 to {(1 << 31) - 1}, not {self.sample}")
        check_minimums(self, "", top_k=0)
        if not 0 < self.temperature < 1e6:
            raise SeqlabError(f"temperature must be above 0 and below 1,000,000, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise SeqlabError(f"top_p must be above 0 and at most 1, not {self.top_p}")


@dataclass(frozen=True)
class Validation:
    """Validation during training."""

    every: int = 500
    """Number of steps between validations. A checkpoint is saved at each validation."""
    examples: int = 1000
    """Number of examples to use, from the beginning of the validation split."""
    metric: str = "loss"
    """Score that selects the best checkpoint and controls early stopping:
    loss, or a metric of the task, such as bleu."""
    beam: int = 1
    """Beam width for the texts that are scored; 0: compute only the loss."""
    patience: int = 0
    """Number of validations without improvement after which training stops; 0: never stop early."""

    def __post_init__(self) -> None:
        check_types(self, "validation.")
        if self.metric != "loss" and not self.beam:
            raise SeqlabError(
                f"validation.metric {self.metric!r} needs decoded texts: set validation.beam to 1 or more"
            )
        check_minimums(self, "validation.", every=1, examples=1, beam=0, patience=0)


@dataclass(frozen=True)
class Checkpoints:
    """Which checkpoints are kept."""

    last: int = 3
    """Number of most recent checkpoints to keep, in addition to the best."""

    def __post_init__(self) -> None:
        check_types(self, "checkpoints.")
        check_minimums(self, "checkpoints.", last=1)


@dataclass(frozen=True)
class Parallel:
    """How each training step is distributed over devices. The batches never depend on it. Results differ only by
    rounding (and, under pmap, in the dropout masks), so a run can be resumed on other devices.
    """

    name: str = "jit"
    """Method: jit over a mesh of devices, or pmap."""
    fsdp: int = 1
    """Number of devices that share each copy of the parameters and optimizer state.
    The rows of a batch are split among them too."""
    tensor: int = 1
    """Number of devices that share each matrix product, split by heads, hidden units and vocabulary."""
    heartbeat: int = 100
    """Number of seconds without a heartbeat after which a process is considered failed."""

    def __post_init__(self) -> None:
        check_types(self, "parallel.")
        check_choice("parallel.name", self.name, ("jit", "pmap"))
        check_minimums(self, "parallel.", fsdp=1, tensor=1, heartbeat=1)
        if self.name == "pmap" and self.fsdp * self.tensor > 1:
            raise SeqlabError(
                "pmap copies the parameters to every device: parallel.fsdp and parallel.tensor need jit"
            )


@dataclass(frozen=True)
class Experiment:
    """An experiment: its parts and all hyperparameters."""

    model: Any
    task: Any
    data: Any
    steps: int = 10_000
    """Number of training steps: updates, or rollouts of an online task."""
    seed: int = 0
    """Random seed for parameters, dropout and the order of batches."""
    accumulate: int = 1
    """Number of microbatches into which a batch is split to save memory. Their gradients are accumulated."""
    nonfinite: str = "stop"
    """Reaction to a loss or gradient that is not finite: stop, skip (skip the update)
    or rollback (continue from the last checkpoint without the batch)."""
    log_every: int = 50
    """Number of steps between log lines."""
    hash_every: int = 0
    """Number of steps between hashes of the batch and the state, for seqlab bisect; 0: no hashes."""
    initialize: tuple[tuple[str, str, str], ...] = ()
    """Initialize parts of the model from other runs.
    Each triple names a part of the model, a run, and the part of that run's model to copy: encoder ../lm encoder.
    If that run has another tokenizer, embeddings are copied by matching pieces.
    Paths are relative to the folder of the run."""
    references: tuple[tuple[str, str], ...] = ()
    """Frozen reference models for the loss.
    Each pair is a name and a run. In the loss, the name stands for the model of the run.
    Paths are relative to the folder of the run."""
    parametrization: Any = None
    """Parametrization, such as an adapter: a function that changes the parameters of the model.
    If it adds parameters, only these are trained by default."""
    text: Text = field(default_factory=Text)
    batching: Batching = field(default_factory=Batching)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    search: Search = field(default_factory=Search)
    validation: Validation = field(default_factory=Validation)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    parallel: Parallel = field(default_factory=Parallel)

    def __post_init__(self) -> None:
        check_types(self)
        for name, value, minimum, maximum in (
            ("seed", self.seed, 0, (1 << 32) - 1),
            ("steps", self.steps, 1, (1 << 31) - 1),
        ):
            if not minimum <= value <= maximum:  # the 32-bit integers of JAX
                raise SeqlabError(f"{name} must be between {minimum} and {maximum}, not {value}")
        check_choice("nonfinite", self.nonfinite, ("stop", "skip", "rollback"))
        check_minimums(self, "", accumulate=1, log_every=1, hash_every=0)
