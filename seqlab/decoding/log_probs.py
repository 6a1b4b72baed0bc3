"""Log-probabilities of given texts, and a check that the model is causal."""

from collections.abc import Sequence

import numpy as np

from seqlab.decoding.trained import TrainedModel
from seqlab.search.forced import token_log_probs
from seqlab.search.requests import Request, max_tokens, source_length
from seqlab.system.errors import SeqlabError


def line_log_probs(
    trained: TrainedModel, sources: Sequence[str], targets: Sequence[str], first: int = 1
) -> list[tuple[list[int], np.ndarray]]:
    """Returns, for each target given its source ("" for a language model), its tokens, EOS last, and their
    log-probabilities. Raises `SeqlabError` for a line that the model cannot read. Lines are counted from `first`.
    """
    requests, answers = forced_pairs(trained, sources, targets)
    maximum = max_tokens(trained.model)
    for i, (request, answer) in enumerate(zip(requests, answers, strict=True), first):
        if longest_side(request, answer) > maximum:
            raise SeqlabError(f"line {i} has more than the {maximum} tokens that the model can read")
    return list(zip(answers, token_log_probs(trained.model, trained.params, requests, answers), strict=True))


def forced_pairs(
    trained: TrainedModel, sources: Sequence[str], targets: Sequence[str]
) -> tuple[list[Request], list[list[int]]]:
    """Returns the requests of sources, and targets as their answers, EOS last."""
    tokenizer = trained.codecs["target"]
    answers = [[*ids, tokenizer.eos] for ids in tokenizer.encode(targets)]
    return trained.task.requests(trained.encode(sources), trained.codecs, 0), answers


def longest_side(request: Request, answer: Sequence[int]) -> int:
    """Returns the number of positions of a forced pass, in the source or the target, whichever is longer."""
    return max(source_length(request), len(request.prompt) + len(answer) - 1)


def is_causal(trained: TrainedModel, sources: Sequence[str], targets: Sequence[str]) -> bool:
    """Returns whether changes of tokens in the second half of each target leave the log-probabilities of the first
    half unchanged, bit by bit. Pairs that are longer than the model can read are skipped.
    """
    pairs = zip(*forced_pairs(trained, sources, targets), strict=True)
    short = [pair for pair in pairs if longest_side(*pair) <= max_tokens(trained.model)]
    requests, answers = [request for request, _ in short], [answer for _, answer in short]
    halves = [len(answer) // 2 for answer in answers]
    size = trained.codecs["target"].size
    changed = [
        [*answer[:n], *((token + 1) % size for token in answer[n:])]
        for n, answer in zip(halves, answers, strict=True)
    ]
    before, after = (token_log_probs(trained.model, trained.params, requests, ids) for ids in (answers, changed))
    return all(np.array_equal(a[:n], b[:n]) for n, a, b in zip(halves, before, after, strict=True))
