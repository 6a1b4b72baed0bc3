"""Conversion of `config.Search` to the settings of a search over a vocabulary."""

import dataclasses
from collections.abc import Sequence

from seqlab.codecs.codec import END, TextCodec
from seqlab.config import Experiment, Search
from seqlab.search.presets import resolve_preset
from seqlab.search.settings import SearchSettings, split_settings
from seqlab.system.errors import SeqlabError


def resolve_search(search: Search, tokenizer: TextCodec, count: int = 1) -> SearchSettings:
    """Returns the settings of a search that returns `count` texts per line. Raises `SeqlabError` for a word that
    cannot be forbidden, and for a count above the beam.
    """
    special = [getattr(tokenizer, name) for name in resolve_preset(search).forbidden]
    forbidden = forbidden_ids(search.forbid, tokenizer)
    return split_settings(search, eos=tokenizer.eos, special=special, forbidden=forbidden, count=count)


def validation_search(experiment: Experiment) -> Search:
    """Returns the search of validation: the experiment's search with a beam of `validation.beam`. Raises
    `SeqlabError` for a beam that is not a multiple of the search's groups.
    """
    task, beam, search = experiment.task, experiment.validation.beam, experiment.search
    if not (beam and task.metrics and task.searches):
        return search
    greedy = {"groups": 1, "diversity": Search.diversity, "coverage": 0.0, "risk": None} if beam == 1 else {}
    try:
        return dataclasses.replace(search, beam=beam, **greedy)
    except SeqlabError as error:
        raise SeqlabError(f"validation.beam {beam}: {error}") from None


def forbidden_ids(words: Sequence[str], tokenizer: TextCodec) -> list[int]:
    """Returns the ids of words that are single tokens. "<pad>", "<s>" and "<unk>" are the special tokens. Raises
    `SeqlabError` for a word that is not a single token.
    """
    special = {"<pad>": tokenizer.pad, "<s>": tokenizer.bos, "<unk>": tokenizer.unk}
    ids = []
    for word, tokens in zip(words, tokenizer.encode(list(words)), strict=True):
        if word == END:
            raise SeqlabError(f"{END} ends every text and cannot be forbidden: use --min-length to get longer texts")
        if word not in special and len(tokens) != 1:
            raise SeqlabError(
                f"{word!r} is {len(tokens)} tokens in this vocabulary, but a forbidden word must be a single token"
            )
        ids.append(special[word] if word in special else tokens[0])
    return ids
