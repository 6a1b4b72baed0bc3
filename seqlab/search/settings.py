"""The settings of a search: `config.Search`, split into what is compiled and what is traced."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from seqlab.config import Search
from seqlab.search.presets import Rules, resolve_preset
from seqlab.system.errors import SeqlabError


class StaticSettings(NamedTuple):
    """The compiled part: other values make another program. The fields up to `coverage` are about the method, the
    others about the scores of single tokens.
    """

    eos: int
    beam: int
    nbest: int
    """Hypotheses of a sentence that are returned, at most `beam`."""
    groups: int
    rules: Rules
    greedy: bool
    """Whether the best token is taken at every step, in place of a beam search by the rules."""
    sampling: bool
    coverage: bool
    """Whether the attention over the source is added up for the coverage penalty."""
    special: tuple[int, ...]
    """Ids that are never written and keep their probability, so that scores stay those of the model."""
    forbidden: tuple[int, ...]
    """Ids that are never written. The rules say whether their probability goes to the others."""
    no_repeat: int
    repetition: float
    temperature: float
    top_k: int
    top_p: float


class ScoreWeights(NamedTuple):
    """The traced part: numbers that scores and choices depend on."""

    alpha: Any
    word_penalty: Any
    coverage: Any
    diversity: Any


class SearchSettings(NamedTuple):
    """All settings of a search. `batch_tokens` is the maximum number of positions of sources and hypotheses in a
    batch, per device.
    """

    static: StaticSettings
    weights: ScoreWeights
    seed: int
    batch_tokens: int


def split_settings(
    search: Search, *, eos: int, special: Sequence[int] = (), forbidden: Sequence[int] = (), count: int = 1
) -> SearchSettings:
    """Splits a search. `special` and `forbidden` are the ids that are never written (see `StaticSettings`). `count`
    is the number of hypotheses that are returned for a sentence. Raises `SeqlabError` for a count above the beam.
    """
    if not 1 <= count <= search.beam:
        raise SeqlabError(f"a beam of {search.beam} holds 1 to {search.beam} hypotheses a sentence, not {count}")
    preset = resolve_preset(search)
    static = StaticSettings(
        eos=eos,
        beam=search.beam,
        nbest=count,
        groups=search.groups,
        rules=preset.rules,
        greedy=search.beam == 1 and search.preset == "seqlab" and search.stop is None,
        sampling=search.sample is not None,
        coverage=bool(search.coverage),
        special=tuple(sorted({*special})),
        forbidden=tuple(sorted({*forbidden})),
        no_repeat=search.no_repeat,
        repetition=search.repetition,
        temperature=search.temperature,
        top_k=search.top_k,
        top_p=search.top_p,
    )
    weights = ScoreWeights(preset.alpha, search.word_penalty, search.coverage, search.diversity)
    return SearchSettings(static, weights, search.sample or 0, search.batch_tokens)
