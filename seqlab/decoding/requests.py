"""Conversion of lines to the requests of a search, with lengths, prefixes and phrases."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqlab.codecs.codec import Codecs, TextCodec, as_row
from seqlab.config import MAX_TOKENS, Search
from seqlab.data.batches import with_end
from seqlab.data.padding import sentences_of
from seqlab.decoding.trained import TrainedModel
from seqlab.search.presets import resolve_preset
from seqlab.search.requests import Request, max_tokens, source_length
from seqlab.system.errors import SeqlabError


class Constraints(NamedTuple):
    """Prefixes that decoded texts must begin with, and phrases that they must contain: none, or one entry
    per line.
    """

    prefixes: Sequence[str] = ()
    phrases: Sequence[Sequence[str]] = ()


NO_CONSTRAINTS = Constraints()


class Lines(NamedTuple):
    """Lines to decode, counted from `first`; their ids if they are known (None: `texts` are encoded); and the
    constraints on the decoded texts.
    """

    texts: Sequence[str]
    ids: Sequence[Any] | None = None
    first: int = 1
    constraints: Constraints = NO_CONSTRAINTS

    def part(self, rows: slice) -> "Lines":
        """Returns some of the lines, with their numbers."""
        prefixes, phrases = self.constraints
        constraints = Constraints(prefixes[rows], phrases[rows])
        return Lines(self.texts[rows], self.ids and self.ids[rows], self.first + (rows.start or 0), constraints)


def requests_of(
    trained: TrainedModel, lines: Lines, rows: Sequence[int], search: Search, warn: Callable[[str], None]
) -> list[Request]:
    """Returns the requests of the lines with the indices `rows`, with their numbers."""
    task, model, _, codecs = trained
    minimum = max(search.min_length, resolve_preset(search).minimum)
    texts = [lines.texts[i] for i in rows]
    ids = trained.encode(texts) if lines.ids is None else [lines.ids[i] for i in rows]
    requests = []
    for i, text, request in zip(rows, texts, task.requests(ids, codecs, search.max_length), strict=True):
        number = lines.first + i
        request = bound_lengths(cut_to_readable(request, model, f"line {number}", text, warn), search, minimum)
        requests.append(request._replace(number=number))
    return requests


def cut_to_readable(request: Request, model: Any, name: str, line: str, warn: Callable[[str], None]) -> Request:
    """Returns the request with its source truncated to what the model can read. Raises `SeqlabError` for a prompt
    that is too long.
    """
    maximum = max_tokens(model)
    if len(request.prompt) > maximum:
        raise SeqlabError(f"{name} has more than the {maximum} tokens that the model can read: {line[:40]}")
    if request.source is None or len(request.source) <= maximum:
        return request
    warn(f"{name} has {len(request.source)} tokens and is truncated to {maximum}: {line[:40]}")
    return cut_source(request, request.source, maximum)


def bound_lengths(request: Request, search: Search, minimum: int) -> Request:
    """Returns the request with the minimum and maximum lengths of a search. An explicit minimum takes precedence over
    a default maximum. Raises `SeqlabError` for length ratios if the request has no source.
    """
    limit, size = request.limit, source_length(request)
    if (search.max_ratio or search.min_ratio) and request.source is None:
        raise SeqlabError(
            "max_ratio and min_ratio are multiples of the length of a source, but this task has no source: leave "
            "them out"
        )
    if search.max_ratio:
        by_ratio = math.ceil(min(search.max_ratio * size, MAX_TOKENS))
        limit = min(limit, by_ratio) if search.max_length else by_ratio
    minimum = max(minimum, math.ceil(min(search.min_ratio * size, MAX_TOKENS)))
    if not search.max_length and not search.max_ratio:
        limit = max(limit, minimum)
    return request._replace(limit=limit, minimum=min(minimum, limit))


def constrained_requests(
    constraints: Constraints, rows: Sequence[int], requests: Sequence[Request], tokenizer: TextCodec
) -> list[Request]:
    """Returns the requests of the lines `rows` with the prefixes and phrases of these lines."""
    prefixes = tokenizer.encode([constraints.prefixes[i] for i in rows]) if constraints.prefixes else []
    phrases = [constraints.phrases[i] for i in rows] if constraints.phrases else []
    ids = iter(tokenizer.encode([*itertools.chain(*phrases)]))
    return [
        request._replace(
            prefix=prefixes[n] if prefixes else (), phrases=[next(ids) for _ in phrases[n]] if phrases else ()
        )
        for n, request in enumerate(requests)
    ]


def source_request(ids: Sequence[int] | np.ndarray, codecs: Codecs, limit: int) -> Request:
    """Returns the request for a text of at most `limit` tokens, with a source as the model reads it in training."""
    codec, prompt = codecs["source"], [codecs["target"].bos]
    source = with_end(as_row(ids, codec), codec)
    if codec.size is None:
        return Request(source, prompt, limit)
    sentences = sentences_of(source, codec.newline).tolist() if isinstance(codec, TextCodec) else None
    return Request(source.tolist(), prompt, limit, sentences)


def cut_source(request: Request, source: Sequence[int], maximum: int) -> Request:
    """Returns the request with the first tokens of its source and EOS, `maximum` in total."""
    sentences = request.sentences and request.sentences[:maximum]
    return request._replace(source=[*source[: maximum - 1], source[-1]], sentences=sentences)
