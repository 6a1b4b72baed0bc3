"""The interface of a model for search: functions of its state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Step = Callable[
    [Any, jax.Array, jax.Array], tuple[jax.Array, Any]
]  # (state, token [B K], t) -> logits [B K V], state
Reorder = Callable[[Any, jax.Array], Any]  # (state, parents [B K]) -> state
Reward = Callable[[Any], jax.Array]  # state -> [B K]


class Decoder(NamedTuple):
    """The functions of a model that search calls. `reward` is at most 0 and is added to the score of a hypothesis
    that ends in a state. If the logits are `normalized`, they are scores already and are not normalized again.
    """

    step: Step
    reorder: Reorder
    reward: Reward | None = None
    normalized: bool = False


class Span(NamedTuple):
    """The steps of one call of a search, from `begin` up to `end`. The last prompt token is at position `prompt_end`.
    No hypothesis is longer than `max_length` tokens.
    """

    begin: Any
    end: Any
    prompt_end: int
    max_length: int
