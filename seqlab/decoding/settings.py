"""TODO decoding.settings."""

import math
from collections.abc import Sequence

from seqlab.config import Search
from seqlab.data.tokenizers import END, TextTokenizer
from seqlab.decoding.risk import UTILITIES
from seqlab.search.processors import Options
from seqlab.search.requests import LONGEST
from seqlab.search.rules import Preset, Rules, preset
from seqlab.search.searcher import Weights
from seqlab.system.errors import SeqlabError, at_least


def settled(search: Search, tokenizer: TextTokenizer) -> tuple[Preset, Rules | None, Options, Weights]:
    """What a search asks of `generate`: the preset, rules, which greedy search has none of, options and weights."""
    found = preset(search.preset, search.length, search.stop, search.alpha)
    rules = None if search.beam == 1 and search.preset == "seqlab" else found.rules
    special = [getattr(tokenizer, name) for name in found.forbidden]
    forbidden = tuple(sorted({*special, *forbidden_ids(search.forbid, tokenizer)}))
    options = Options(forbidden, search.no_repeat, search.repetition, search.temperature, search.top_k, search.top_p)
    return found, rules, options, Weights(found.alpha, search.word_penalty, search.coverage, search.diversity)


def forbidden_ids(words: Sequence[str], tokenizer: TextTokenizer) -> list[int]:
    """The ids of single tokens; "<pad>", "<s>" and "<unk>" are the special ones. Raises for a word that is none."""
    special = {"<pad>": tokenizer.pad, "<s>": tokenizer.bos, "<unk>": tokenizer.unk}
    ids = []
    for word, found in zip(words, tokenizer.encode(list(words)), strict=True):
        if word == END:
            raise SeqlabError(
                f"{END} is the end of every text, and cannot be forbidden: --min-length asks for long ones"
            )
        if word not in special and len(found) != 1:
            raise SeqlabError(f"{word!r} is {len(found)} tokens of this vocabulary; a forbidden word is one")
        ids.append(special[word] if word in special else found[0])
    return ids


MOST_BEAM = 10_000


def check_search(search: Search) -> None:
    """Raises `SeqlabError` for a search that cannot be."""
    if search.beam < 1:
        raise SeqlabError(f"a beam holds at least 1 hypothesis, not {search.beam}")
    if search.beam > MOST_BEAM:
        raise SeqlabError(f"a beam holds at most {MOST_BEAM:,} hypotheses, not {search.beam:,}")
    if search.max_length < 0:
        raise SeqlabError(f"the maximum length is at least 1 token, not {search.max_length}")
    found = preset(search.preset, search.length, search.stop, search.alpha)
    sizes = {"word_penalty": search.word_penalty, "coverage": search.coverage, "diversity": search.diversity}
    for name, value in {"alpha": found.alpha, **sizes}.items():
        if not abs(value) < 1e6:
            raise SeqlabError(f"{name} is a number below a million, not {value}")
    for name in ("min_length", "max_ratio", "min_ratio", "no_repeat", "coverage", "diversity"):
        at_least(name, getattr(search, name), 0)
    at_least("groups", search.groups, 1)
    at_least("batch_tokens", search.batch_tokens, 1)
    if max(search.max_length, search.min_length) > LONGEST:
        raise SeqlabError(
            f"texts have at most {LONGEST} tokens, and cannot be of {search.max_length or search.min_length}"
        )
    if search.beam % search.groups:
        raise SeqlabError(f"{search.groups} groups do not divide a beam of {search.beam}")
    if search.risk is not None and search.risk not in UTILITIES:
        raise SeqlabError(f"the risk is by one of {', '.join(UTILITIES)}, not {search.risk!r}")
    if search.sample is not None and search.groups > 1:
        raise SeqlabError("groups are of a beam, and samples have none")
    if not 0 < search.repetition < math.inf:
        raise SeqlabError(f"the repetition penalty is above 0, and 1 is none, not {search.repetition}")
    sampling = {
        "temperature": search.temperature != 1,
        "top_k": search.top_k != 0,
        "top_p": search.top_p != 1,
        "risk": search.risk is not None,
    }
    if search.sample is None and any(sampling.values()):
        name = next(name for name, given in sampling.items() if given)
        raise SeqlabError(f"{name} is for samples: give a seed, --sample 1")
    if search.sample is not None and not 0 <= search.sample < 1 << 31:
        raise SeqlabError(f"the seed of samples lies between 0 and {(1 << 31) - 1}, not at {search.sample}")
    at_least("top_k", search.top_k, 0)
    if not 0 < search.temperature < math.inf or not 0 < search.top_p <= 1:
        raise SeqlabError(
            f"the temperature is above 0 and top_p lies in (0, 1], not {search.temperature} and {search.top_p}"
        )
    if search.max_length and search.min_length > search.max_length:
        raise SeqlabError(f"at least {search.min_length} and at most {search.max_length} tokens is no length")
    if search.min_ratio > search.max_ratio > 0:
        raise SeqlabError(f"at least {search.min_ratio} and at most {search.max_ratio} times the source is no length")
