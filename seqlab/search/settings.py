"""The settings of a search: `config.Search`, split into compiled and traced values."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from seqlab.config import Search
from seqlab.search.presets import Rules, resolve_preset
from seqlab.system.errors import SeqlabError


class StaticSettings(NamedTuple):
    """The compiled values: other values compile another program. The fields up to `coverage` choose the method, the
    others change the scores of single tokens.
    """

    eos: int
    beam: int
    nbest: int
    """Number of returned hypotheses per sentence, at most `beam`."""
    groups: int
    rules: Rules
    greedy: bool
    """Whether to take the best token at every step, in place of a beam search by the rules."""
    sampling: bool
    coverage: bool
    """Whether to add up the attention over the source for the coverage penalty."""
    special: tuple[int, ...]
    """Ids that are never generated, but keep their probability, so that scores are those of the model."""
    forbidden: tuple[int, ...]
    """Ids that are never generated. The rules say whether their probability is redistributed to the others."""
    no_repeat: int
    repetition: float
    temperature: float
    top_k: int
    top_p: float


class ScoreWeights(NamedTuple):
    """The traced values: numbers that scores and choices depend on."""

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
    """Splits the settings of a search. `special` and `forbidden` are ids that are never generated (see
    `StaticSettings`). `count` is the number of returned hypotheses per sentence. Raises `SeqlabError` for a count
    above the beam.
    """
    if not 1 <= count <= search.beam:
        raise SeqlabError(f"a beam of {search.beam} returns 1 to {search.beam} hypotheses per sentence, not {count}")
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
