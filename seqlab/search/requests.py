"""Requests of token ids, and how they become arrays of few shapes."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqlab.errors import SeqlabError
from seqlab.search.processors import Options
from seqlab.types import AnyArray, Tokens

ROWS = (1, 8, 24, 64)  # sentences a batch, on each device; the smallest that holds what is left is taken
LONGEST = 1 << 13  # most tokens of a source or a prompt, where the model sets no bound: memory grows with its square
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


class Asked(NamedTuple):
    """Requests as arrays: what a jitted search takes, besides parameters and weights."""

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
    phrases = set(map(tuple, request.phrases))
    told, tokens = [*request.prefix, *itertools.chain(*phrases)], sum(map(len, phrases))
    if set(told) & set(options.forbidden):
        raise SeqlabError(f"{where} must have a token that is forbidden")
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


def round_up(n: int) -> int:
    """Lengths come in few sizes: 16 32 64 96 128 192 256 ..., for each makes another shape to compile."""
    size = 16
    while size < n:
        size = size * 2 if size < 64 else size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def batches(
    requests: Sequence[Request], beam: int, longest: int | None, positions: int = POSITIONS, devices: int = 1
) -> Iterator[tuple[list[int], tuple[int, int, int, int]]]:
    """Indices of requests of like length, and their shape: (rows, source length, prompt length, room for the answer).

    Where the model has a `longest` sequence, all lengths are held to it. Rows are alike for all devices, and on each
    there are at most so many positions.
    """
    most = longest or 1 << 30
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (source, prompt, *_) in enumerate(requests):
        # A prompt of one token, BOS, stays one: nothing of it has to be read ahead of the first step.
        prompt_length = 1 if len(prompt) == 1 else min(1 + round_up(len(prompt) - 1), most)
        source_length = 0 if source is None else min(round_up(len(source)), most)
        groups.setdefault((source_length, prompt_length), []).append(i)
    for shape, members in sorted(groups.items()):
        # Texts of like sources are of like length, and are done at about the same time.
        members.sort(key=lambda i: (len(requests[i].source or ()), len(requests[i].prompt), requests[i].limit))
        room = min(round_up(max(requests[i].limit for i in members)), most - shape[1] + 1)
        fitting = [rows for rows in ROWS if rows * (shape[0] + beam * (shape[1] + room)) <= positions] or [1]
        for at in range(0, len(members), fitting[-1] * devices):
            chosen = members[at : at + fitting[-1] * devices]
            yield chosen, (devices * next(rows for rows in ROWS if rows * devices >= len(chosen)), *shape, room)


def padded_sources(requests: Sequence[Request], rows: int, length: int) -> Tokens | None:
    """Sources, left-aligned and filled up with empty rows; None if they have no length."""
    if not length:
        return None
    source = np.zeros((3, rows, length), np.int32)
    for row, request in enumerate(requests):
        size = len(request.source or ())
        source[:, row, :size] = request.source or (), np.ones(size), request.sentences or np.zeros(size)
    return Tokens(source[0], source[1] > 0, sentences=source[2])


def collate(requests: list[Request], shape: tuple[int, int, int, int]) -> Asked:
    """Padded arrays: sources left-aligned, prompts right-aligned, filled-up rows with a limit of 0."""
    rows, source_length, prompt_length, room = shape
    prompt = np.zeros((2, rows, prompt_length), np.int32)
    prompt[1, :, -1] = 1
    limit, least, numbers = np.zeros((3, rows), np.int32)
    for row, request in enumerate(requests):
        prompt[:, row, prompt_length - len(request.prompt) :] = request.prompt, np.ones(len(request.prompt))
        limit[row] = min(request.limit, room)
        least[row], numbers[row] = request.least, request.number
    return Asked(
        padded_sources(requests, rows, source_length),
        Tokens(prompt[0], prompt[1] > 0),
        limit,
        least,
        numbers,
        _prefixes(requests, rows, room),
        _phrases(requests, rows),
    )


def _prefixes(requests: list[Request], rows: int, room: int) -> np.ndarray | None:
    """[B T], -1 where any token may come; None if there is nowhere a prefix."""
    if not any(request.prefix for request in requests):
        return None
    prefix = np.full((rows, room), -1, np.int32)
    for row, request in enumerate(requests):
        prefix[row, : len(request.prefix)] = request.prefix
    return prefix


def _phrases(requests: list[Request], rows: int) -> np.ndarray | None:
    """[B P M], -1 behind the ends of phrases; None if there are none. Few shapes: P and M are powers of two."""
    phrases = [list(dict.fromkeys(map(tuple, request.phrases))) for request in requests]
    if not any(phrases):
        return None
    count, longest = max(map(len, phrases)), max(len(phrase) for some in phrases for phrase in some)
    found = np.full((rows, 1 << (count - 1).bit_length(), 1 << (longest - 1).bit_length()), -1, np.int32)
    for row, some in enumerate(phrases):
        for column, phrase in enumerate(some):
            found[row, column, : len(phrase)] = phrase
    return found
