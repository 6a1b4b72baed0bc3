"""The rules of beam search: how a hypothesis is scored, when it may end, and when a sentence is done. Presets follow
the rules of other toolkits, so that the same weights generate the same text.

n is the number of tokens of a hypothesis, including EOS. The rank of a hypothesis is its position, from 0, among all
continuations of its sentence, sorted by their sums of log-probabilities. K is the beam size.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from seqlab.config import Search


@dataclass(frozen=True)
class Rules:
    """The rules of a beam search."""

    length_penalty: str = "gnmt"
    """Divisor of the sum of log-probabilities: 1 ("none"), ((5 + n) / 6) ** alpha ("gnmt", Wu et al. 2016, equation
    14) or n ** alpha ("power")."""
    finish: str = "beam"
    """Rank of the hypotheses that may finish when they end: below K ("beam"), or below 2K ("candidates")."""
    survivors: str = "refill"
    """Hypotheses that stay in the beam: the K best that do not end ("refill"); those that do not end among the K - F
    best, where F have finished before, so that the beam shrinks ("shrink"); or the K best, including ended ones
    ("stay")."""
    keep: str = "best"
    """Finished hypotheses that are stored: the K "best" or the K "first"."""
    at_max_length: str = "end"
    """Treatment of hypotheses at the maximum length: they must end, and their EOS is scored ("end"); they are
    accepted without EOS ("accept"); or they are dropped, unless no hypothesis has finished, in which case unfinished
    ones are returned with their plain sums ("rescue")."""
    stop: str = "optimal"
    """A sentence is done
    "optimal": once no unfinished hypothesis can beat the worst of the `nbest` best finished ones;
    "first": at the first step at which a hypothesis finishes;
    "full": once K have finished;
    "bound": once K have finished, and the best unfinished one would not beat the worst of them if it ended now;
    "top": once the best continuation of some step has ended, and `nbest` have finished;
    "empty": once no unfinished hypothesis is left;
    "slots": once a hypothesis has ended in each of the K places of the beam (or, without effect on the result, once
        all hypotheses in the beam have ended before)."""
    renormalize: bool = True
    """Whether the probability of forbidden tokens is redistributed to the others. The probability of special tokens
    never is."""


DEFAULT = Rules()


class Preset(NamedTuple):
    """Rules, and a toolkit's defaults: alpha, the minimum n, and the special tokens that are never generated."""

    rules: Rules
    alpha: float
    minimum: int
    forbidden: tuple[str, ...]


# Each preset follows the source code or paper in the comment above it.
PRESETS = {
    # seqlab/search/beam.py
    "seqlab": Preset(DEFAULT, 0.6, 1, ("pad", "bos")),
    # Wu et al. 2016, section 7, without its pruning; tensor2tensor 1.15.7, utils/beam_search.py
    "gnmt": Preset(Rules(finish="candidates", at_max_length="rescue"), 0.6, 1, ()),
    # fairseq 0.12.2, sequence_generator.py
    "fairseq": Preset(Rules("power", keep="first", stop="full", renormalize=False), 1.0, 2, ("pad",)),
    # Joey NMT 2.3.0, search.py
    "joey": Preset(
        Rules(survivors="stay", at_max_length="accept", stop="slots", renormalize=False), 1.0, 2, ("pad", "bos")
    ),
    # Marian 1.12.42, translator/beam_search.cpp and history.h
    "marian": Preset(
        Rules("power", survivors="shrink", at_max_length="accept", stop="empty", renormalize=False), 0.0, 1, ("unk",)
    ),
    # CTranslate2 4.8.5, decoding.cc
    "ct2": Preset(Rules("power", at_max_length="accept", stop="full"), 1.0, 2, ()),
    # transformers 5.23.0, generation/utils.py, early_stopping=False
    "hf": Preset(Rules("power", at_max_length="accept", stop="bound", renormalize=False), 1.0, 1, ()),
}


def resolve_preset(search: Search) -> Preset:
    """Returns the search's preset, in which the length penalty, stop rule and alpha of the search take precedence."""
    preset = PRESETS[search.preset]
    alpha = preset.alpha if search.alpha is None else search.alpha
    rules = preset.rules
    if search.preset == "ct2" and alpha == 0:  # a longer hypothesis cannot score higher
        rules = dataclasses.replace(rules, stop="top")
    changes = {"length_penalty": search.length, "stop": search.stop}
    changes = {name: value for name, value in changes.items() if value is not None}
    return preset._replace(rules=dataclasses.replace(rules, **changes), alpha=alpha)
