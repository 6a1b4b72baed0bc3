"""An experiment and its parts: frozen dataclasses that check the values of their fields. Every hyperparameter is
defined here or in a model, once.
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
MAX_POSITIONS = 1 << 16  # of sources and hypotheses in a batch: long lines come in smaller batches
MAX_TOKENS = 1 << 13  # of a text, where the model sets no bound: memory grows with the square of a source


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

    def __post_init__(self) -> None:
        check_types(self, "text.")
        if self.kind not in ("bpe", "char", "word"):
            raise SeqlabError(f"unknown tokenizer {self.kind!r}: bpe, char or word")
        check_minimums(self, "text.", sample=1)


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

    def __post_init__(self) -> None:
        check_types(self, "batching.")
        check_minimums(self, "batching.", tokens=1, buckets=1, max_length=1, max_ratio=1)


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
    trainable: str = ""
    """Train only the parameters whose path contains a match of this regular expression. "": all, or those that a
    parametrization adds."""
    rates: tuple[tuple[str, float], ...] = ()
    """Pairs of a regular expression and a factor on the learning rate. The first one found in a parameter's path
    applies."""

    def __post_init__(self) -> None:
        check_types(self, "optimizer.")
        check_pattern("optimizer.trainable", self.trainable)
        for pattern, rate in self.rates:
            check_pattern("optimizer.rates", pattern)
            if not 0 < rate < math.inf:
                raise SeqlabError(f"optimizer.rates: the factor of {pattern!r} must be above 0, not {rate}")
        if self.name not in OPTIMIZERS:
            raise SeqlabError(f"unknown optimizer {self.name!r}: one of {', '.join(OPTIMIZERS)}")
        check_minimums(self, "optimizer.", clip=0)
        check_fraction("optimizer.beta1", self.beta1)
        check_fraction("optimizer.beta2", self.beta2)
        check_nonnegative("optimizer.epsilon", self.epsilon)
        check_nonnegative("optimizer.weight_decay", self.weight_decay)
        check_fraction("optimizer.average", self.average)
        if not math.isfinite(self.clip):
            raise SeqlabError(f"optimizer.clip is a finite number, not {self.clip}")


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

    def __post_init__(self) -> None:
        check_types(self, "schedule.")
        if self.name not in SCHEDULES:
            raise SeqlabError(f"unknown schedule {self.name!r}: one of {', '.join(SCHEDULES)}")
        check_minimums(self, "schedule.", every=1, warmup=0)
        check_nonnegative("schedule.peak", self.peak)


@dataclass(frozen=True)
class Search:
    """How text is generated, in validation and by default afterwards."""

    beam: int = 5
    """Hypotheses kept a sentence; 1 is greedy search, by the preset seqlab."""
    preset: str = "seqlab"
    """What "beam search" means: seqlab, gnmt, fairseq, joey, marian, ct2 or hf (docs/guides/search.md)."""
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
    batch_tokens: int = MAX_POSITIONS
    """Most positions of sources and hypotheses at once, a device; pads are included."""
    risk: str | None = None
    """Of samples: the best is that which is most like all the others, by chrf or bleu. None: the likeliest."""

    def __post_init__(self) -> None:
        check_types(self, "search.")
        self.check_beam()
        self.check_lengths()
        self.check_sampling()

    def check_beam(self) -> None:
        if self.beam < 1:
            raise SeqlabError(f"a beam holds at least 1 hypothesis, not {self.beam}")
        if self.beam > MAX_BEAM:
            raise SeqlabError(f"a beam holds at most {MAX_BEAM:,} hypotheses, not {self.beam:,}")
        check_choice("preset", self.preset, PRESET_NAMES)
        if self.length is not None:
            check_choice("length", self.length, LENGTH_PENALTIES)
        if self.stop is not None:
            check_choice("stop", self.stop, STOP_RULES)
        for name in ("alpha", "word_penalty", "coverage", "diversity"):
            value = getattr(self, name)
            if value is not None and not abs(value) < 1e6:
                raise SeqlabError(f"{name} is a number below a million, not {value}")
        check_minimums(self, "", coverage=0, diversity=0, groups=1, batch_tokens=1, no_repeat=0)
        if self.beam % self.groups:
            raise SeqlabError(f"{self.groups} groups do not divide a beam of {self.beam}")
        if not 0 < self.repetition < math.inf:
            raise SeqlabError(f"the repetition penalty is above 0, and 1 is none, not {self.repetition}")

    def check_lengths(self) -> None:
        if self.max_length < 0:
            raise SeqlabError(f"the maximum length is at least 1 token, not {self.max_length}")
        check_minimums(self, "", min_length=0, max_ratio=0, min_ratio=0)
        if max(self.max_length, self.min_length) > MAX_TOKENS:
            raise SeqlabError(
                f"texts have at most {MAX_TOKENS} tokens, and cannot be of {self.max_length or self.min_length}"
            )
        if self.max_length and self.min_length > self.max_length:
            raise SeqlabError(f"at least {self.min_length} and at most {self.max_length} tokens is no length")
        if self.min_ratio > self.max_ratio > 0:
            raise SeqlabError(f"at least {self.min_ratio} and at most {self.max_ratio} times the source is no length")

    def check_sampling(self) -> None:
        if self.risk is not None and self.risk not in RISKS:
            raise SeqlabError(f"the risk is by one of {', '.join(RISKS)}, not {self.risk!r}")
        if self.sample is not None and self.groups > 1:
            raise SeqlabError("groups are of a beam, and samples have none")
        usual = {"temperature": 1, "top_k": 0, "top_p": 1, "risk": None}
        changed = next((name for name, value in usual.items() if getattr(self, name) != value), None)
        if self.sample is None and changed is not None:
            raise SeqlabError(f"{changed} is for samples: give a seed, --sample 1")
        if self.sample is not None and not 0 <= self.sample < 1 << 31:
            raise SeqlabError(f"the seed of samples lies between 0 and {(1 << 31) - 1}, not at {self.sample}")
        check_minimums(self, "", top_k=0)
        if not 0 < self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise SeqlabError(
                f"the temperature is above 0 and top_p lies in (0, 1], not {self.temperature} and {self.top_p}"
            )


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

    def __post_init__(self) -> None:
        check_types(self, "validation.")
        if self.metric != "loss" and not self.beam:
            raise SeqlabError(
                f"validation.metric {self.metric!r} needs translations: set validation.beam to 1 or more"
            )
        check_minimums(self, "validation.", every=1, examples=1, beam=0)


@dataclass(frozen=True)
class Checkpoints:
    """What is kept of a run."""

    last: int = 3
    """How many of the newest are kept, besides the best."""

    def __post_init__(self) -> None:
        check_types(self, "checkpoints.")
        check_minimums(self, "checkpoints.", last=1)


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

    def __post_init__(self) -> None:
        check_types(self, "parallel.")
        if self.name not in ("jit", "pmap"):
            raise SeqlabError(f"unknown parallel.name {self.name!r}: jit or pmap")
        check_minimums(self, "parallel.", fsdp=1, tensor=1, heartbeat=1)
        if self.name == "pmap" and self.fsdp * self.tensor > 1:
            raise SeqlabError(
                "pmap copies the parameters to every device: parallel.fsdp and parallel.tensor need jit"
            )


@dataclass(frozen=True)
class Experiment:
    """One experiment: the objects that run, and all their numbers."""

    model: Any
    task: Any
    data: Any
    steps: int = 10_000
    """Training steps: updates, or of an online task rollouts, with task.updates updates each."""
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
    initialize: tuple[tuple[str, str, str], ...] = ()
    """Triples: a part of the model, such as encoder; the run that it starts from; the part of that run's model. Paths
    are relative to the run's folder."""
    references: tuple[tuple[str, str], ...] = ()
    """Pairs: a name, and the run whose frozen model the loss uses by that name. Paths are relative to the run's
    folder."""
    parametrization: Any = None
    """A part of parametrizations/, such as an adapter, whose parameters are trained in place of the model's."""
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
            if not minimum <= value <= maximum:  # as JAX has them, of 32 bits
                raise SeqlabError(f"{name} lies between {minimum} and {maximum}, not at {value}")
        if self.nonfinite not in ("stop", "skip", "rollback"):
            raise SeqlabError(f"nonfinite must be stop, skip or rollback, not {self.nonfinite!r}")
        check_minimums(self, "", accumulate=1, log_every=1, hash_every=0)
