"""Search in NumPy: exhaustive search, and depth-first search that prunes answers that cannot win."""

import itertools
from collections.abc import Callable

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def length_score(rule: str, alpha: float, word_penalty: float) -> Callable[[float, int], float]:
    """Returns a function that scores a sum of log-probabilities over n tokens."""
    penalties = {"none": lambda n: 1.0, "gnmt": lambda n: ((5 + n) / 6) ** alpha, "power": lambda n: n**alpha}
    return lambda total, n: (total - word_penalty * n) / penalties[rule](n)


def exhaustive(
    logits: np.ndarray, first: int, eos: int, limit: int, alpha: float, rule: str = "gnmt", word_penalty: float = 0.0
) -> list[tuple[float, list[int]]]:
    """Returns (score, answer) of all answers of at most `limit` tokens that end in EOS, best first.

    `logits[t, previous]` [V] replace the model. The score is the log-probability, minus a penalty for each of n
    tokens, divided by ((5 + n) / 6) ** alpha or as the rule defines.
    """
    log_probs, score = log_softmax(logits.astype(np.float64)), length_score(rule, alpha, word_penalty)
    others = [token for token in range(logits.shape[-1]) if token != eos]
    found = []
    for n in range(limit):
        for head in itertools.product(others, repeat=n):
            answer, previous, total = [*head, eos], first, 0.0
            for t, token in enumerate(answer):
                total += log_probs[t, previous, token]
                previous = token
            found.append((score(total, n + 1), answer))
    return sorted(found, key=lambda pair: -pair[0])


def depth_first(
    logits: np.ndarray, first: int, eos: int, limit: int, score: Callable[[float, int], float], incumbent: float
) -> tuple[list[int], int]:
    """Returns the best answer that beats the incumbent, if there is one, and the number of expanded nodes."""
    log_probs = log_softmax(logits.astype(np.float64))
    best: tuple[float, list[int]] = (incumbent, [])
    nodes = 0

    def expand(path: list[int], total: float) -> None:
        nonlocal best, nodes
        nodes += 1
        sums = total + log_probs[len(path), path[-1] if path else first]
        best = max(best, (score(sums[eos], len(path) + 1), [*path, eos]), key=lambda one: one[0])
        for token in np.argsort(-sums, kind="stable"):
            hopes = [score(sums[token], n) for n in range(len(path) + 2, limit + 1)]
            if token != eos and hopes and max(hopes) > best[0]:
                expand([*path, int(token)], sums[token])

    expand([], 0.0)
    return best[1], nodes
