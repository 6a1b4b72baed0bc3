"""TODO decoding.requests."""

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqlab.config import Search
from seqlab.data.padding import sentences_of
from seqlab.data.tokenizers import TextTokenizer, Tokenizers
from seqlab.decoding.settings import settled
from seqlab.search.requests import LONGEST, Request, most_tokens
from seqlab.system.errors import SeqlabError


class Constraints(NamedTuple):
    """What texts must begin with, and phrases that must be in them: none, or as many as there are lines."""

    prefixes: Sequence[str] = ()
    phrases: Sequence[Sequence[str]] = ()


NO_CONSTRAINTS = Constraints()


def warn(message: str) -> None:
    print(f"seqlab: {message}", file=sys.stderr)


def requests_of(
    task: Any,
    model: Any,
    tokenizers: Tokenizers,
    lines: Sequence[tuple[int, str]],
    search: Search,
    warn: Callable[[str], None],
) -> list[Request]:
    """What lines, with their numbers, ask of a search."""
    least = settled(search, tokenizers["target"])[0].least
    requests = task.requests([line for _, line in lines], tokenizers, search.max_length)
    return [
        bounded(readable(request, model, f"line {i}", line, warn), search, least)._replace(number=i)
        for request, (i, line) in zip(requests, lines, strict=True)
    ]


def readable(request: Request, model: Any, where: str, line: str, warn: Callable[[str], None]) -> Request:
    """The request, its source cut to what can be read. Raises for a prompt that is longer."""
    most = most_tokens(model)
    if len(request.prompt) > most:
        raise SeqlabError(f"{where} has more than the {most} tokens that can be read: {line[:40]}")
    if request.source is None or len(request.source) <= most:
        return request
    warn(f"{where} has {len(request.source)} tokens, and {most} are read: {line[:40]}")
    return cut_source(request, request.source, most)


def bounded(request: Request, search: Search, least: int) -> Request:
    """The request with the lengths that a search asks for."""
    most, least, size = request.limit, max(search.min_length, least), len(request.source or ())
    if search.max_ratio and size:
        by_ratio = math.ceil(min(search.max_ratio * size, LONGEST))
        most = min(most, by_ratio) if search.max_length else by_ratio
    return request._replace(limit=most, least=min(max(least, math.ceil(min(search.min_ratio * size, LONGEST))), most))


def constrained_requests(
    told: Constraints, asked: Sequence[int], requests: Sequence[Request], tokenizer: TextTokenizer
) -> Iterator[Request]:
    """The requests of the lines `asked`, with what they are told."""
    prefixes = tokenizer.encode([told.prefixes[i] for i in asked] if told.prefixes else [])
    phrases = [told.phrases[i] for i in asked] if told.phrases else []
    ids = iter(tokenizer.encode([*itertools.chain(*phrases)]))
    for n, request in enumerate(requests):
        prefix = prefixes[n] if prefixes else ()
        yield request._replace(prefix=prefix, phrases=[next(ids) for _ in phrases[n]] if phrases else ())


def source_request(ids: Sequence[int] | np.ndarray, tokenizers: Tokenizers, limit: int) -> Request:
    """Asks for a text of at most `limit` tokens for a source: x1 .. xn EOS, as in `pair_batch`."""
    ended = [*map(int, ids), tokenizers["source"].eos]
    sentences = sentences_of(np.array(ended), tokenizers["source"].newline).tolist()
    return Request(ended, [tokenizers["target"].bos], limit, sentences)


def cut_source(request: Request, source: Sequence[int], most: int) -> Request:
    """The request with the first tokens of its source and EOS, `most` in all."""
    sentences = request.sentences and request.sentences[:most]
    return request._replace(source=[*source[: most - 1], source[-1]], sentences=sentences)
