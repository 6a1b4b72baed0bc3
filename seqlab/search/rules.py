"""What "beam search" means: how a hypothesis is scored, when it may end, when a sentence is done. And what other
toolkits mean by it, so that the same weights write the same text.

n is the number of tokens of a hypothesis, EOS included; its rank is its place, from 0, among all continuations of its
sentence by their sums of log-probabilities; K is the beam.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from seqlab.system.errors import SeqlabError


@dataclass(frozen=True)
class Rules:
    length: str = "gnmt"
    """What the sum of log-probabilities is divided by: nothing ("none"), ((5 + n) / 6) ** alpha ("gnmt", Wu et al.
    2016, equation 14) or n ** alpha ("power")."""
    finish: str = "beam"
    """Which of the hypotheses that end may finish: those of rank below K ("beam"), or below 2K ("candidates")."""
    after: str = "refill"
    """Who goes on: the K best that do not end ("refill"); those that do not end among as many as went on before, so
    that the beam grows smaller ("shrink"); the K best, and those that have ended go on too ("stay")."""
    keep: str = "best"
    """Which finished ones are kept: the K "best", or the K "first"."""
    limit: str = "end"
    """At the maximum length all must end, and pay for it ("end"); are taken as they are ("accept"); or are lost,
    unless nothing has finished ("rescue": then those that go on are returned, their score the plain sum)."""
    stop: str = "optimal"
    """A sentence is done
    "optimal": once none that goes on can come to beat the worst of the `wanted` best finished ones;
    "first": at the first step at which anything finishes;
    "full": once K have finished;
    "bound": once K have finished, and the best that goes on would not beat the worst of them if it ended now;
    "top": once the best continuation of some step has ended, and `wanted` have finished;
    "empty": once none goes on;
    "slots": once in each of the K places of the beam something has ended (or, which changes no result, once all that
    go on have ended before)."""
    renormalize: bool = True
    """Whether what is forbidden leaves its probability to the rest."""


DEFAULT = Rules()


class Preset(NamedTuple):
    """Rules, and what the toolkit has for defaults: alpha, the least n, and which special tokens are forbidden."""

    rules: Rules
    alpha: float
    least: int
    forbidden: tuple[str, ...]
    source: str
    """Where the rules are written."""


PRESETS = {
    "seqlab": Preset(DEFAULT, 0.6, 1, (), "seqlab/search/beam.py"),
    "gnmt": Preset(
        Rules(finish="candidates", limit="rescue"),
        0.6,
        1,
        (),
        "Wu et al. 2016, section 7, without its pruning; tensor2tensor 1.15.7, utils/beam_search.py",
    ),
    "fairseq": Preset(
        Rules("power", keep="first", stop="full", renormalize=False),
        1.0,
        2,
        ("pad",),
        "fairseq 0.12.2, sequence_generator.py",
    ),
    "joey": Preset(
        Rules(after="stay", limit="accept", stop="slots", renormalize=False),
        1.0,
        2,
        ("pad", "bos"),
        "Joey NMT 2.3.0, search.py",
    ),
    "marian": Preset(
        Rules("power", after="shrink", limit="accept", stop="empty", renormalize=False),
        0.0,
        1,
        ("unk",),
        "Marian 1.12.42, translator/beam_search.cpp and history.h",
    ),
    "ct2": Preset(Rules("power", limit="accept", stop="full"), 1.0, 2, (), "CTranslate2 4.8.5, decoding.cc"),
    "hf": Preset(
        Rules("power", limit="accept", stop="bound", renormalize=False),
        1.0,
        1,
        (),
        "transformers 5.23.0, generation/utils.py, early_stopping=False",
    ),
}

CHOICES = {
    "preset": tuple(PRESETS),
    "length": ("none", "gnmt", "power"),
    "stop": ("optimal", "first", "full", "bound", "top", "empty", "slots"),
}


def check_choice(field: str, value: str) -> None:
    if value not in CHOICES[field]:
        raise SeqlabError(f"{field} must be one of {', '.join(CHOICES[field])}, not {value!r}")


def preset(name: str, length: str | None = None, stop: str | None = None, alpha: float | None = None) -> Preset:
    """A preset, with what is given in the place of its own. Raises for a name that there is not."""
    check_choice("preset", name)
    found = PRESETS[name]
    alpha = found.alpha if alpha is None else alpha
    if name == "ct2" and alpha == 0:  # where nothing can be gained by a longer one
        found = found._replace(rules=dataclasses.replace(found.rules, stop="top"))
    given = {field: value for field, value in (("length", length), ("stop", stop)) if value is not None}
    for field, value in given.items():
        check_choice(field, value)
    return found._replace(rules=dataclasses.replace(found.rules, **given), alpha=alpha)
