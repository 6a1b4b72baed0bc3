"""TODO decoding.log_probs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqlab.data.tokenizers import Tokenizers
from seqlab.search.forced import force
from seqlab.search.requests import Request, most_tokens
from seqlab.system.errors import SeqlabError
from seqlab.types import Params


def forced_lines(
    task: Any,
    model: Any,
    params: Params,
    tokenizers: Tokenizers,
    sources: Sequence[str],
    targets: Sequence[str],
    first: int = 1,
) -> list[tuple[list[int], np.ndarray]]:
    """Of each target, given its source ("" for a language model): its tokens, EOS last, and their log-probabilities.
    Raises for a line of more tokens than can be read; lines are counted from `first`.
    """
    requests, answers = to_be_forced(task, tokenizers, sources, targets)
    most = most_tokens(model)
    for i, (request, answer) in enumerate(zip(requests, answers, strict=True), first):
        if longest_side(request, answer) > most:
            raise SeqlabError(f"line {i} has more than the {most} tokens that can be read")
    return list(zip(answers, force(model, params, requests, answers), strict=True))


def to_be_forced(
    task: Any, tokenizers: Tokenizers, sources: Sequence[str], targets: Sequence[str]
) -> tuple[list[Request], list[list[int]]]:
    """The requests of sources, and targets as their answers, EOS last."""
    answers = [[*ids, tokenizers["target"].eos] for ids in tokenizers["target"].encode(targets)]
    return task.requests(sources, tokenizers, 0), answers


def longest_side(request: Request, answer: Sequence[int]) -> int:
    """How many positions a forced pass has, in the source or in the target."""
    return max(len(request.source or ()), len(request.prompt) + len(answer) - 1)


def is_causal(
    task: Any, model: Any, params: Params, tokenizers: Tokenizers, sources: Sequence[str], targets: Sequence[str]
) -> bool:
    """Whether tokens of some targets leave the probabilities of those before them as they were, to the bit. What is
    longer than can be read is not asked.
    """
    pairs = zip(*to_be_forced(task, tokenizers, sources, targets), strict=True)
    short = [pair for pair in pairs if longest_side(*pair) <= most_tokens(model)]
    requests, answers = [request for request, _ in short], [answer for _, answer in short]
    kept = [len(answer) // 2 for answer in answers]
    size = len(tokenizers["target"])
    others = [
        [*answer[:n], *((token + 1) % size for token in answer[n:])] for n, answer in zip(kept, answers, strict=True)
    ]
    before, after = (force(model, params, requests, some) for some in (answers, others))
    return all(np.array_equal(a[:n], b[:n]) for n, a, b in zip(kept, before, after, strict=True))
