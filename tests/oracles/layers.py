"""Layers in plain NumPy, one sum at a time."""

import math

import numpy as np


def attention(query, key, value, out, x, memory, mask):
    """Multi-head attention of one row: x [T D], memory [S D], mask [T S]; kernels [D H d], out [H d D]."""
    heads, width = query.shape[1:]
    result = np.zeros_like(x)
    for t in range(len(x)):
        for h in range(heads):
            seen = [s for s in range(len(memory)) if mask[t, s]]
            if not seen:
                continue
            q = x[t] @ query[:, h]
            scores = [q @ (memory[s] @ key[:, h]) / math.sqrt(width) for s in seen]
            weights = [math.exp(score - max(scores)) for score in scores]
            mixed = sum(w * (memory[s] @ value[:, h]) for w, s in zip(weights, seen, strict=True)) / sum(weights)
            result[t] += mixed @ out[h]
    return result


def layer_norm(x, scale, bias):
    rows = [(row - row.mean()) / math.sqrt(row.var() + 1e-6) * scale + bias for row in x.reshape(-1, x.shape[-1])]
    return np.array(rows).reshape(x.shape)


def sinusoidal(position, dim):
    half = dim // 2
    rates = [10_000 ** -(i / max(half - 1, 1)) for i in range(half)]
    return np.array([math.sin(position * r) for r in rates] + [math.cos(position * r) for r in rates])


def smoothed_cross_entropy(logits, target, smoothing):
    """Cross-entropy of one position against (1 - smoothing) on the target and the rest spread evenly over all."""
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    goal = np.full(len(logits), smoothing / len(logits))
    goal[target] += 1 - smoothing
    return -(goal * np.log(probabilities)).sum()
