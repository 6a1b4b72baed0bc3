"""Ensembles: several models that generate one text, with or without a language model (shallow fusion).

Search uses an `Ensemble` like a generator. Its parameters, memory and state are tuples with one element per member.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqlab.types import Attentive, Inputs, Params, Tokens

MEANS = ("probabilities", "log_probabilities")


class Ensemble(NamedTuple):
    """Several models whose scores of a token are combined: the logarithm of the mean probability, or the mean
    log-probability. With a language model, whose parameters come last, `weight` times its log-probabilities are added
    (Gulcehre et al. 2015, section 4.1).
    """

    models: tuple[Any, ...]
    mean: str = "probabilities"
    language_model: Any = None
    weight: float = 0.0

    @property
    def members(self) -> tuple[Any, ...]:
        return self.models if self.language_model is None else (*self.models, self.language_model)

    @property
    def longest(self) -> int | None:
        return min((model.longest for model in self.members if model.longest), default=None)

    def apply(self, params: Params, *arguments: Any, method: Callable[..., Any]) -> Any:
        """Calls a method like `apply` of a linen module."""
        return method(self, params, *arguments)

    def start(
        self, params: tuple[Params, ...], inputs: Inputs, prompt: Tokens, capacity: int, hypotheses: int
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        started = [
            model.apply(
                parameters,
                None if model is self.language_model else inputs,
                prompt,
                capacity,
                hypotheses,
                method=type(model).start,
            )
            for model, parameters in zip(self.members, params, strict=True)
        ]
        return tuple(memory for memory, _ in started), tuple(state for _, state in started)

    def step(
        self,
        params: tuple[Params, ...],
        memory: tuple[Any, ...],
        state: tuple[Any, ...],
        token: Int[Array, "B K"],
        t: Int[Array, ""],
    ) -> tuple[Float[Array, "B K V"], tuple[Any, ...]]:
        methods = [type(model).step for model in self.members]
        outputs = self.apply_members(methods, params, memory, state, token, t)
        return self.scores([logits for logits, _ in outputs]), tuple(after for _, after in outputs)

    def attentive_step(
        self,
        params: tuple[Params, ...],
        memory: tuple[Any, ...],
        state: tuple[Any, ...],
        token: Int[Array, "B K"],
        t: Int[Array, ""],
    ) -> tuple[Float[Array, "B K V"], tuple[Any, ...], Float[Array, "B K S"]]:
        """Returns the results of a step, and the mean attention of the models over the source. All models must have
        attention.
        """
        methods = [type(model).attentive_step for model in self.models]
        if self.language_model is not None:
            methods.append(type(self.language_model).step)
        outputs = self.apply_members(methods, params, memory, state, token, t)
        attention = jnp.stack([output[2] for output in outputs[: len(self.models)]]).mean(0)
        return self.scores([output[0] for output in outputs]), tuple(output[1] for output in outputs), attention

    def apply_members(
        self,
        methods: list[Callable[..., Any]],
        params: tuple[Params, ...],
        memory: tuple[Any, ...],
        state: tuple[Any, ...],
        token: Int[Array, "B K"],
        t: Int[Array, ""],
    ) -> list[Any]:
        """Returns the outputs of one method per member."""
        return [
            model.apply(*arguments, token, t, method=method)
            for model, method, *arguments in zip(self.members, methods, params, memory, state, strict=True)
        ]

    def scores(self, logits: list[Float[Array, "B K V"]]) -> Float[Array, "B K V"]:
        log_probs = jnp.stack([jax.nn.log_softmax(x, axis=-1) for x in logits])
        models = log_probs[: len(self.models)]
        if self.mean == "probabilities":
            scores = jax.nn.logsumexp(models, axis=0) - jnp.log(len(self.models))
        else:
            scores = models.mean(axis=0)
        return scores if self.language_model is None else scores + self.weight * log_probs[-1]

    def grow(self, state: tuple[Any, ...], more: int) -> tuple[Any, ...]:
        return tuple(model.grow(inner, more) for model, inner in zip(self.members, state, strict=True))

    def reorder(self, state: tuple[Any, ...], parents: Int[Array, "B K"]) -> tuple[Any, ...]:
        return tuple(model.reorder(inner, parents) for model, inner in zip(self.members, state, strict=True))


def has_attention(model: Any) -> bool:
    """Returns whether a generator, or each model of an ensemble, returns its attention over the source."""
    models = model.models if isinstance(model, Ensemble) else (model,)
    return all(isinstance(member, Attentive) for member in models)
