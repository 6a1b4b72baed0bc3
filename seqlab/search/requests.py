"""Requests of token ids, and how they become arrays of few shapes."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seqlab.search.processors import Options
from seqlab.system.errors import SeqlabError
from seqlab.types import AnyArray, Tokens

ROWS = (1, 8, 24, 64, 128, 256)  # sentences a batch, on each device; the smallest that holds what is left is taken
LONGEST = 1 << 13  # most tokens of anything, where the model sets no bound: memory grows with the square of a source
POSITIONS = 1 << 16  # most positions of sources and hypotheses a batch: long lines come in smaller batches


class Request(NamedTuple):
    """One text to decode: source ids (None for a language model), prompt ids, most tokens to write; of a document,
    which sentence each token of the source is of; least tokens to write (both counts include EOS); a number, on which
    hinges what is drawn for it; what the text must begin with; phrases that must be in it.
    """

    source: Sequence[int] | None
    prompt: Sequence[int]
    limit: int
    sentences: Sequence[int] | None = None
    least: int = 1
    number: int = 0
    prefix: Sequence[int] = ()
    phrases: Sequence[Sequence[int]] = ()


class Shape(NamedTuple):
    """What requests of one batch have in common: room for their sources (0: they have none), prompts and answers;
    whether they have prefixes; room for how many phrases, and of how many tokens.
    """

    source: int
    prompt: int
    answer: int
    prefixes: bool = False
    phrases: tuple[int, int] = (0, 0)


class RequestBatch(NamedTuple):
    """Requests as arrays: what a jitted search takes, besides parameters and weights. `prefix` [B T] is -1 where any
    token may come, `phrases` [B P M] behind the ends of phrases; both are None where nobody has any.
    """

    inputs: Tokens | None
    prompt: Tokens
    limit: AnyArray
    least: AnyArray
    numbers: AnyArray
    prefix: AnyArray | None
    phrases: AnyArray | None


def most_tokens(model: Any) -> int:
    """How many tokens of a source or a prompt can be read."""
    return getattr(model, "longest", None) or LONGEST


def check_request(where: str, request: Request, model: Any, beam: int, options: Options) -> None:
    """Raises where a request cannot be read, or where what must be written cannot be."""
    most = most_tokens(model)
    if max(len(request.source or ()), len(request.prompt)) > most:
        raise SeqlabError(f"{where} has more than the {most} tokens that can be read")
    phrases = distinct(request.phrases)
    told, tokens = [*request.prefix, *itertools.chain(*phrases)], sum(map(len, phrases))
    if set(told) & set(options.forbidden):
        raise SeqlabError(f"{where} must have a token that is forbidden")
    for text in (request.prefix, *phrases):
        grams = [tuple(text[i : i + options.no_repeat]) for i in range(len(text) - options.no_repeat + 1)]
        if options.no_repeat and len(grams) > len(set(grams)):
            raise SeqlabError(f"{where} must repeat what --no-repeat {options.no_repeat} forbids")
    left = sum(len(phrase) for phrase in phrases if not contains(request.prefix, phrase))
    room = min(request.limit, most - len(request.prompt) + 1)
    if told and len(request.prefix) + left + 1 > room:
        raise SeqlabError(
            f"{where} must have {len(request.prefix) + left} tokens and EOS, and has room for {room}: "
            "raise --max-length"
        )
    if phrases and beam < tokens + 1:
        raise SeqlabError(f"{where} must have phrases of {tokens} tokens: --beam {tokens + 1} or more")


def contains(tokens: Sequence[int], phrase: Sequence[int]) -> bool:
    size = len(phrase)
    return any([*tokens[at : at + size]] == [*phrase] for at in range(len(tokens) - size + 1))


def round_up(n: int, most: int) -> int:
    """Lengths come in few sizes: 16 32 64 96 128 192 256 ... `most`, for each makes another shape to compile."""
    size = 16
    while size < n:
        size = size * 2 if size < 64 else size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, most)


def shapes(requests: Sequence[Request], longest: int | None) -> dict[Shape, list[int]]:
    """Indices of requests of one shape, those of like length beside each other. Where the model has a `longest`
    sequence, all lengths are held to it.
    """
    most = longest or 1 << 30
    groups: dict[Shape, list[int]] = {}
    for i, request in enumerate(requests):
        # A prompt of one token, BOS, stays one: nothing of it has to be read ahead of the first step.
        prompt = 1 if len(request.prompt) == 1 else 1 + round_up(len(request.prompt) - 1, most - 1)
        source = 0 if request.source is None else round_up(len(request.source), most)
        phrases = distinct(request.phrases)
        count, size = len(phrases), max(map(len, phrases), default=0)
        room = (1 << (count - 1).bit_length(), 1 << (size - 1).bit_length()) if count else (0, 0)
        groups.setdefault(Shape(source, prompt, 0, bool(request.prefix), room), []).append(i)
    found = {}
    for shape, members in sorted(groups.items()):
        # Texts of like sources are of like length, and are done at about the same time.
        members.sort(key=lambda i: (len(requests[i].source or ()), len(requests[i].prompt), requests[i].limit))
        answer = round_up(max(requests[i].limit for i in members), most - shape.prompt + 1)
        found[shape._replace(answer=answer)] = members
    return found


def positions_of(shape: Shape, beam: int) -> int:
    """How many positions a sentence and its hypotheses have."""
    return shape.source + beam * (shape.prompt + shape.answer)


def most_rows(shape: Shape, beam: int, positions: int) -> int:
    """How many sentences a batch may have, for so many positions; one, if none fits."""
    return max((rows for rows in ROWS if rows * positions_of(shape, beam) <= positions), default=1)


def padded_sources(requests: Sequence[Request], rows: int, length: int) -> Tokens | None:
    """Sources, left-aligned and filled up with empty rows; None if they have no length."""
    if not length:
        return None
    source = np.zeros((3, rows, length), np.int32)
    for row, request in enumerate(requests):
        size = len(request.source or ())
        source[:, row, :size] = request.source or (), np.ones(size), request.sentences or np.zeros(size)
    return Tokens(source[0], source[1] > 0, sentences=source[2])


def collate(requests: list[Request], rows: int, shape: Shape) -> RequestBatch:
    """Padded arrays: sources left-aligned, prompts right-aligned, filled-up rows with a limit of 0."""
    prompt = np.zeros((2, rows, shape.prompt), np.int32)
    prompt[1, :, -1] = 1
    limit, least, numbers = np.zeros((3, rows), np.int32)
    prefix = np.full((rows, shape.answer if shape.prefixes else 0), -1, np.int32)
    phrases = np.full((rows, *shape.phrases), -1, np.int32)
    for row, request in enumerate(requests):
        prompt[:, row, shape.prompt - len(request.prompt) :] = request.prompt, np.ones(len(request.prompt))
        limit[row] = min(request.limit, shape.answer)
        least[row], numbers[row] = request.least, request.number
        prefix[row, : len(request.prefix)] = request.prefix
        for column, phrase in enumerate(distinct(request.phrases)):
            phrases[row, column, : len(phrase)] = phrase
    return RequestBatch(
        padded_sources(requests, rows, shape.source),
        Tokens(prompt[0], prompt[1] > 0),
        limit,
        least,
        numbers,
        prefix if shape.prefixes else None,
        phrases if phrases.size else None,
    )


def distinct(phrases: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Phrases, each once."""
    return list(dict.fromkeys(map(tuple, phrases)))
