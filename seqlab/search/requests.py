"""Requests of token ids, and their conversion to arrays of few shapes."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seqlab.config import MAX_TOKENS
from seqlab.data.padding import pad
from seqlab.search.settings import StaticSettings
from seqlab.system.errors import SeqlabError
from seqlab.types import AnyArray, Frames, Inputs, Pixels, Tokens

# sentences in a batch per device; the last batch has the smallest size that holds its sentences
BATCH_SIZES = (1, 8, 24, 64, 128, 256)


class Request(NamedTuple):
    """One text to decode.

    `source` holds its ids, or an array [S F] or [rows columns channels] (None for a language model). `sentences`
    holds the number of the sentence of each source token, from 0. The text follows `prompt`, has `minimum` to `limit`
    tokens, including EOS, begins with `prefix` and contains `phrases`. The random draws of samples depend on
    `number`. The first `begin` tokens of the prompt begin the text and are not part of it.
    """

    source: Any
    prompt: Sequence[int]
    limit: int
    sentences: Sequence[int] | None = None
    minimum: int = 1
    number: int = 0
    prefix: Sequence[int] = ()
    phrases: Sequence[Sequence[int]] = ()
    begin: int = 1

    def name(self, index: int) -> str:
        """Returns the name of the request in error messages: its line if it has one, otherwise its index."""
        return f"line {self.number}" if self.number else f"request {index}"


class Shape(NamedTuple):
    """The shape that the requests of a batch share: room for their sources (0 if they have none), prompts and texts;
    whether they have prefixes; room for the number of phrases, and for the tokens of a phrase.
    """

    source: int
    prompt: int
    text: int
    prefixes: bool = False
    phrases: tuple[int, int] = (0, 0)


class RequestBatch(NamedTuple):
    """Requests as arrays, the input of a jitted search besides parameters and weights.

    `limit`, `minimum` and `numbers` int [B]. `prefix` int [B T] is -1 where any token is allowed, and `phrases` int
    [B P M] is padded with -1; both are None if no request has any. `counted` bool [B P] marks the tokens of the
    prompt that are part of the text; None if the text never continues a prompt.
    """

    inputs: Inputs
    prompt: Tokens
    limit: AnyArray
    minimum: AnyArray
    numbers: AnyArray
    prefix: AnyArray | None = None
    phrases: AnyArray | None = None
    counted: AnyArray | None = None

    @property
    def continued_prompt(self) -> Tokens | None:
        """The prompt with a mask of the tokens that are part of the text."""
        return None if self.counted is None else Tokens(self.prompt.ids, self.counted)


def max_tokens(model: Any) -> int:
    """Returns the maximum number of tokens of a source or a prompt that the model reads."""
    return model.longest or MAX_TOKENS


def check_request(name: str, request: Request, model: Any, static: StaticSettings) -> None:
    """Raises `SeqlabError` for a request that is too long, or whose prefix and phrases cannot be generated."""
    readable = max_tokens(model)
    if max(source_length(request), len(request.prompt)) > readable:
        raise SeqlabError(f"{name} has more than the {readable} tokens that the model can read")
    phrases = distinct(request.phrases)
    forced, tokens = [*request.prefix, *itertools.chain(*phrases)], sum(map(len, phrases))
    if set(forced) & {*static.special, *static.forbidden}:
        raise SeqlabError(f"{name} requires a forbidden token: change --forbid, or that prefix or phrase")
    prompt, n = request.prompt[request.begin :], static.no_repeat
    if n and (repeats([*prompt, *request.prefix], n, len(prompt)) or phrases_repeat(phrases, prompt, n)):
        raise SeqlabError(
            f"{name} requires a repetition that --no-repeat {n} forbids: change --no-repeat, or that prefix or "
            "those phrases"
        )
    missing = sum(len(phrase) for phrase in phrases if not contains(request.prefix, phrase))
    room = min(request.limit, readable - len(request.prompt) + 1)
    if forced and len(request.prefix) + missing + 1 > room:
        raise SeqlabError(
            f"{name} requires {len(request.prefix) + missing} tokens and EOS, but has room for {room}: "
            "raise --max-length"
        )
    if phrases and static.beam < tokens + 1:
        raise SeqlabError(f"{name} requires phrases of {tokens} tokens in total: set --beam to {tokens + 1} or more")


def ngrams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def repeats(tokens: Sequence[int], n: int, begin: int = 0) -> bool:
    """Returns whether an n-gram that ends after the first `begin` tokens occurs earlier."""
    grams = ngrams(tokens, n)
    first = {gram: i for i, gram in reversed([*enumerate(grams)])}
    return any(first[gram] < i for i, gram in enumerate(grams) if i + n > begin)


def phrases_repeat(phrases: Sequence[Sequence[int]], prompt: Sequence[int], n: int) -> bool:
    """Returns whether a phrase repeats an n-gram of its own or of the prompt."""
    begun = set(ngrams(prompt, n))
    return any(repeats(phrase, n) or not begun.isdisjoint(ngrams(phrase, n)) for phrase in phrases)


def contains(tokens: Sequence[int], phrase: Sequence[int]) -> bool:
    size = len(phrase)
    return any([*tokens[at : at + size]] == [*phrase] for at in range(len(tokens) - size + 1))


def round_up(n: int, maximum: int) -> int:
    """Returns the next of few lengths, 16 32 64 96 128 192 256 ... `maximum`, because each shape is compiled."""
    size = 16
    while size < n:
        size = size * 2 if size < 64 else size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, maximum)


def shapes(requests: Sequence[Request], model: Any) -> dict[Shape, list[int]]:
    """Returns the indices of the requests of each shape, sorted by length. The model's maximum sequence length, if it
    has one, bounds all lengths.
    """
    maximum = model.longest or 1 << 30
    groups: dict[Shape, list[int]] = {}
    for i, request in enumerate(requests):
        # A prompt of one token, BOS, is not padded: nothing has to be read before the first step.
        prompt = 1 if len(request.prompt) == 1 else 1 + round_up(len(request.prompt) - 1, maximum - 1)
        source = source_room(request, maximum)
        phrases = distinct(request.phrases)
        count, size = len(phrases), max(map(len, phrases), default=0)
        room = (1 << (count - 1).bit_length(), 1 << (size - 1).bit_length()) if count else (0, 0)
        groups.setdefault(Shape(source, prompt, 0, bool(request.prefix), room), []).append(i)
    indices = {}
    for shape, members in sorted(groups.items()):
        # Texts of similar sources have similar lengths, and are done at about the same time.
        members.sort(key=lambda i: (source_length(requests[i]), len(requests[i].prompt), requests[i].limit))
        text = round_up(max(requests[i].limit for i in members), maximum - shape.prompt + 1)
        indices[shape._replace(text=text)] = members
    return indices


def positions_of(shape: Shape, beam: int) -> int:
    """Returns the number of positions of a sentence and its hypotheses."""
    return shape.source + beam * (shape.prompt + shape.text)


def max_rows(shape: Shape, beam: int, positions: int) -> int:
    """Returns the maximum number of sentences in a batch of `positions` positions, or 1 if no size fits."""
    return max((rows for rows in BATCH_SIZES if rows * positions_of(shape, beam) <= positions), default=1)


def source_length(request: Request) -> int:
    return 0 if request.source is None else len(request.source)


def source_room(request: Request, maximum: int) -> int:
    """Returns the number of positions for a request's source in a batch. Images are not padded."""
    if request.source is None:
        return 0
    return len(request.source) if np.ndim(request.source) == 3 else round_up(len(request.source), maximum)


def padded_sources(requests: Sequence[Request], rows: int, length: int) -> Inputs:
    """Returns the sources, left-aligned and filled up with empty rows, or None if they have no length."""
    if not length:
        return None
    sources = [request.source for request in requests]
    shape = np.shape(sources[0])[1:]
    if shape:
        values, mask = pad(sources, length, rows, shape=shape, dtype=sources[0].dtype)
        return Frames(values, mask) if len(shape) == 1 else Pixels(values)
    ids, mask = pad(sources, length, rows)
    sentences, _ = pad([request.sentences or [0] * len(request.source) for request in requests], length, rows)
    return Tokens(ids, mask, sentences=sentences)


def collate(requests: list[Request], rows: int, shape: Shape) -> RequestBatch:
    """Returns padded arrays: sources left-aligned, prompts right-aligned. Rows without a request have a
    limit of 0.
    """
    prompt, mask = pad([request.prompt for request in requests], shape.prompt, rows, align="right")
    mask[:, -1] = True
    counted = np.zeros_like(mask)
    limit, minimum, numbers = np.zeros((3, rows), np.int32)
    prefix = np.full((rows, shape.text if shape.prefixes else 0), -1, np.int32)
    phrases = np.full((rows, *shape.phrases), -1, np.int32)
    for row, request in enumerate(requests):
        limit[row] = min(request.limit, shape.text)
        counted[row, shape.prompt - len(request.prompt[request.begin :]) :] = True
        minimum[row], numbers[row] = request.minimum, request.number
        prefix[row, : len(request.prefix)] = request.prefix
        for column, phrase in enumerate(distinct(request.phrases)):
            phrases[row, column, : len(phrase)] = phrase
    return RequestBatch(
        padded_sources(requests, rows, shape.source),
        Tokens(prompt, mask),
        limit,
        minimum,
        numbers,
        prefix if shape.prefixes else None,
        phrases if phrases.size else None,
        counted if shape.prompt > 1 or not shape.source else None,
    )


def distinct(phrases: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Returns the phrases without duplicates."""
    return list(dict.fromkeys(map(tuple, phrases)))
