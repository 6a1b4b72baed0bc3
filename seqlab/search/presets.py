"""What "beam search" means: how a hypothesis is scored, when it may end, when a sentence is done. And what other
toolkits mean by it, so that the same weights write the same text.

n is the number of tokens of a hypothesis, EOS included; its rank is its place, from 0, among all continuations of its
sentence by their sums of log-probabilities; K is the beam.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from seqlab.config import Search


@dataclass(frozen=True)
class Rules:
    """The rules of a beam search."""

    length_penalty: str = "gnmt"
    """What the sum of log-probabilities is divided by: nothing ("none"), ((5 + n) / 6) ** alpha ("gnmt", Wu et al.
    2016, equation 14) or n ** alpha ("power")."""
    finish: str = "beam"
    """Which of the hypotheses that end may finish: those of rank below K ("beam"), or below 2K ("candidates")."""
    survivors: str = "refill"
    """Which hypotheses stay in the beam: the K best that do not end ("refill"); those that do not end among as many
    as there were before, so that the beam shrinks ("shrink"); or the K best, ended ones included ("stay")."""
    keep: str = "best"
    """Which finished hypotheses are stored: the K "best" or the K "first"."""
    at_max_length: str = "end"
    """At the maximum length a hypothesis must end, and its EOS is scored ("end"); is taken as it is ("accept"); or is
    dropped, unless nothing has finished ("rescue": then unfinished hypotheses are returned with their plain sums)."""
    stop: str = "optimal"
    """A sentence is done
    "optimal": once none that goes on can come to beat the worst of the `nbest` best finished ones;
    "first": at the first step at which anything finishes;
    "full": once K have finished;
    "bound": once K have finished, and the best that goes on would not beat the worst of them if it ended now;
    "top": once the best continuation of some step has ended, and `nbest` have finished;
    "empty": once none goes on;
    "slots": once in each of the K places of the beam something has ended (or, which changes no result, once all that
    go on have ended before)."""
    renormalize: bool = True
    """Whether the probability of forbidden tokens goes to the others. That of special tokens never does."""


DEFAULT = Rules()


class Preset(NamedTuple):
    """Rules, and a toolkit's defaults: alpha, the minimum n, and the special tokens that are never written."""

    rules: Rules
    alpha: float
    minimum: int
    forbidden: tuple[str, ...]


# Each follows the source code or the paper above it.
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
    """The search's preset, with the length penalty, stop rule and alpha that the search gives in place of its own."""
    preset = PRESETS[search.preset]
    alpha = preset.alpha if search.alpha is None else search.alpha
    rules = preset.rules
    if search.preset == "ct2" and alpha == 0:  # where nothing can be gained by a longer one
        rules = dataclasses.replace(rules, stop="top")
    changes = {"length_penalty": search.length, "stop": search.stop}
    changes = {name: value for name, value in changes.items() if value is not None}
    return preset._replace(rules=dataclasses.replace(rules, **changes), alpha=alpha)
