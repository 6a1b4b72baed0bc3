"""Processors change the scores of the next tokens before search uses them. They are small pure functions `(scores,
history) -> scores`, where scores [B K V] are logits or log-probabilities, depending on the rules of the search.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqlab.search.settings import StaticSettings
from seqlab.types import Tokens

NEVER = -1e9  # score of an impossible token; finite, so that sums of it stay ordered
SMALLEST_TEMPERATURE = 1e-30  # a temperature that float32 rounds to zero would give 0 / 0


class History(NamedTuple):
    """The tokens of hypotheses so far: `tokens` [B K L], zeros from position `t` on, and the `prompt` [B P] that they
    continue, or None. The mask of the prompt marks the tokens that count as text.
    """

    tokens: jax.Array
    t: jax.Array
    prompt: Tokens | None = None

    def text(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the tokens of prompt and text [B K P + L], a mask of those that count, and the number of positions
        so far.
        """
        written = jnp.broadcast_to(jnp.arange(self.tokens.shape[-1]) < self.t, self.tokens.shape)
        if self.prompt is None:
            return self.tokens, written, self.t
        batch, beam, _ = self.tokens.shape
        prompt = self.prompt.ids, self.prompt.mask
        ids, mask = (jnp.broadcast_to(x[:, None], (batch, beam, x.shape[-1])) for x in prompt)
        tokens = jnp.concatenate([ids, self.tokens], axis=-1)
        return tokens, jnp.concatenate([mask, written], axis=-1), self.t + ids.shape[-1]


Processor = Callable[[jax.Array, History], jax.Array]


def process(
    logits: Float[Array, "B K V"],
    history: History,
    processors: Sequence[Processor],
    minimum: Int[Array, "B"],
    static: StaticSettings,
    renormalize: bool,
    normalized: bool = False,
) -> tuple[Float[Array, "B K V"], Float[Array, "B K 1"]]:
    """Returns processed scores, and the values to subtract from them to get log-probabilities. `normalized` logits
    are already scores, whose probabilities may not add up to one. EOS is forbidden before the `minimum[b]`-th token.
    With `renormalize`, the probability of forbidden tokens is redistributed to the others; the probability of special
    tokens never is. Where no token is allowed, all log-probabilities are `NEVER`.
    """
    eos = static.eos
    early = history.t + 1 < minimum

    def apply_processors(scores: jax.Array) -> jax.Array:
        for processor in processors:
            scores = processor(scores, history)
        return jax.lax.cond(early.any(), lambda: scores.at[..., eos].set(bar_eos(scores[..., eos])), lambda: scores)

    def bar_eos(scores: jax.Array) -> jax.Array:
        return jnp.where(early[:, None], NEVER, scores)

    normalizer = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    if renormalize:
        remaining = apply_processors(logits)
        total = jax.nn.logsumexp(remaining, axis=-1, keepdims=True)
        total = jnp.where(total > NEVER / 2, total - normalizer if normalized else total, 0.0)
        return without_special(remaining, static.special), total
    scores = apply_processors(logits if normalized else logits - normalizer)
    return without_special(scores, static.special), jnp.zeros_like(normalizer)


def without_special(scores: Float[Array, "*N V"], special: Sequence[int]) -> Float[Array, "*N V"]:
    """Returns the scores, `NEVER` for special tokens."""
    if not special:
        return scores
    ids = jnp.arange(scores.shape[-1])
    return jnp.where(functools.reduce(jnp.logical_or, [ids == token for token in special]), NEVER, scores)


def make_processors(static: StaticSettings) -> list[Processor]:
    """Returns the processors for the settings of a search, in the order in which they are applied."""
    processors = [repetition_penalty(static.repetition)] if static.repetition != 1 else []
    processors += [no_repeat_ngrams(static.no_repeat)] if static.no_repeat else []
    processors += [forbid(static.forbidden)] if static.forbidden else []
    processors += [temperature(static.temperature)] if static.temperature != 1 else []
    processors += [top_k(static.top_k)] if static.top_k else []
    return processors + ([top_p(static.top_p)] if static.top_p < 1 else [])


def forbid(ids: Sequence[int]) -> Processor:
    """Returns a processor that forbids tokens."""

    def processor(scores: jax.Array, history: History) -> jax.Array:
        return scores.at[..., jnp.array(ids, int)].set(NEVER)

    return processor


def no_repeat_ngrams(n: int) -> Processor:
    """Returns a processor that forbids repeated n-grams (Paulus et al. 2018, section 2.5)."""

    def processor(scores: jax.Array, history: History) -> jax.Array:
        tokens, counted, t = history.text()
        room = tokens.shape[-1]
        if room < n:
            return scores
        # Wherever the last n-1 tokens occurred earlier, the token that followed them there is forbidden.
        at = jnp.arange(room - n + 1)
        alike = (at + n - 1 < t) & counted[..., : room - n + 1]
        for k in range(n - 1):
            newest = jnp.take(tokens, jnp.maximum(t - n + 1 + k, 0), axis=-1)
            alike &= tokens[..., k : room - n + 1 + k] == newest[..., None]
        return jnp.where(occurrences(tokens[..., n - 1 :], alike, scores.shape[-1]), NEVER, scores)

    return processor


def repetition_penalty(penalty: float) -> Processor:
    """Returns a processor that divides the positive scores of earlier tokens by `penalty`, and multiplies their
    negative scores by it (Keskar et al. 2019, section 4.1, where scores are logits).
    """

    def processor(scores: jax.Array, history: History) -> jax.Array:
        tokens, counted, _ = history.text()
        seen = occurrences(tokens, counted, scores.shape[-1])
        return jnp.where(seen, jnp.where(scores > 0, scores / penalty, scores * penalty), scores)

    return processor


def temperature(value: float) -> Processor:
    """Returns a processor that divides scores by a temperature. Values below 1 favor likely tokens."""

    def processor(scores: jax.Array, history: History) -> jax.Array:
        # The best score becomes 0, so that a division by a small temperature neither overflows nor makes an allowed
        # token impossible.
        below = scores - scores.max(-1, keepdims=True)
        return jnp.where(scores > NEVER / 2, jnp.maximum(below / max(value, SMALLEST_TEMPERATURE), NEVER / 4), NEVER)

    return processor


def top_k(k: int) -> Processor:
    """Returns a processor that allows only the k likeliest tokens (Fan et al. 2018, section 5), and those that tie
    with the last of them.
    """

    def processor(scores: jax.Array, history: History) -> jax.Array:
        lowest = jax.lax.top_k(scores, min(k, scores.shape[-1]))[0][..., -1:]
        return jnp.where(scores >= lowest, scores, NEVER)

    return processor


def top_p(share: float) -> Processor:
    """Returns a processor that allows only the fewest tokens whose probabilities add up to `share` or more (Holtzman
    et al. 2020, section 3.1).
    """

    def processor(scores: jax.Array, history: History) -> jax.Array:
        ordered = jnp.sort(scores, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        lowest = jnp.where(before < share, ordered, jnp.inf).min(-1, keepdims=True)
        return jnp.where(scores >= lowest, scores, NEVER)

    return processor


def occurrences(tokens: Int[Array, "B K N"], real: Bool[Array, "B K N"], vocabulary: int) -> Bool[Array, "B K V"]:
    """Returns which entries of the vocabulary are among the real tokens."""
    batch, beam, _ = tokens.shape
    rows, columns = jnp.arange(batch)[:, None, None], jnp.arange(beam)[None, :, None]
    return jnp.zeros((batch, beam, vocabulary), bool).at[rows, columns, tokens].max(real)
