"""Exhaustive search in plain NumPy: every answer, scored."""

import itertools

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def exhaustive(logits: np.ndarray, first: int, eos: int, limit: int, alpha: float) -> list[tuple[float, list[int]]]:
    """(score, answer) of all answers of at most `limit` tokens that end in EOS, best first.

    `logits[t, previous]` [V] stand for the model. The score is the log-probability over ((5 + n) / 6) ** alpha.
    """
    log_probs = log_softmax(logits.astype(np.float64))
    others = [token for token in range(logits.shape[-1]) if token != eos]
    found = []
    for n in range(limit):
        for head in itertools.product(others, repeat=n):
            answer, previous, total = [*head, eos], first, 0.0
            for t, token in enumerate(answer):
                total += log_probs[t, previous, token]
                previous = token
            found.append((total / ((5 + n + 1) / 6) ** alpha, answer))
    return sorted(found, key=lambda pair: -pair[0])
