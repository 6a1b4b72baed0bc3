"""Reference implementations of layers in NumPy, written as explicit loops."""

import math

import numpy as np


def attention(query, key, value, out, x, memory, mask):
    """Returns multi-head attention for one row: x [T D], memory [S D], mask [T S]; kernels [D H d], out [H d D]."""
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
    rows = [(row - row.mean()) / math.sqrt(row.var() + 1e-5) * scale + bias for row in x.reshape(-1, x.shape[-1])]
    return np.array(rows).reshape(x.shape)


def sinusoidal(position, dim):
    rates = [1 / 10_000 ** (2 * i / dim) for i in range(dim // 2)]
    return np.array([math.sin(position * r) for r in rates] + [math.cos(position * r) for r in rates])


def smoothed_cross_entropy(logits, target, smoothing):
    """Returns the cross-entropy at one position, with 1 - smoothing on the target and the rest spread uniformly."""
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    goal = np.full(len(logits), smoothing / len(logits))
    goal[target] += 1 - smoothing
    return -(goal * np.log(probabilities)).sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal(x, norm):
    """Returns the layer normalization of one vector, or the vector if there is no normalization."""
    return x if norm is None else layer_norm(x[None], *norm)[0]


def cell_step(cell, reset, wx, h, c, recurrent_kernel, own_bias, norms=(None, None, None)):
    """Returns the next h and c of one row, given W x + b; see `recurrent`."""
    recurrent_norm, cell_norm, candidate_norm = norms
    dim = len(h)
    if cell == "gru" and reset == "before":
        gates = sigmoid(wx[: 2 * dim] + normal(h @ recurrent_kernel[:, : 2 * dim], recurrent_norm))
        r, z = gates[:dim], gates[dim:]
        u = normal((r * h) @ recurrent_kernel[:, 2 * dim :], candidate_norm)
        return z * h + (1 - z) * np.tanh(wx[2 * dim :] + u), c
    uh = normal(h @ recurrent_kernel, recurrent_norm)
    if cell == "gru":
        gates = sigmoid(wx[: 2 * dim] + uh[: 2 * dim])
        r, z = gates[:dim], gates[dim:]
        return z * h + (1 - z) * np.tanh(wx[2 * dim :] + r * (uh[2 * dim :] + own_bias)), c
    if cell == "lstm":
        i, f, g, o = (wx + uh).reshape(4, dim)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(normal(c, cell_norm)), c
    return np.tanh(wx + uh) if cell == "rnn" else np.maximum(wx + uh, 0), c


def recurrent(cell, reset, x, weights, norms=(None, None, None, None)):
    """Returns the states h of one row, x [T F], starting from zero. `weights`: input [F G], recurrent [D G], bias
    [G], and for a GRU with its reset gate after the product, the bias of the candidate [D].
    """
    kernel, recurrent_kernel, bias, own_bias = weights
    input_norm, *rest = norms
    h, c, states = np.zeros(len(recurrent_kernel)), np.zeros(len(recurrent_kernel)), []
    for row in x:
        wx = normal(row @ kernel, input_norm) + bias
        h, c = cell_step(cell, reset, wx, h, c, recurrent_kernel, own_bias, rest)
        states.append(h)
    return np.array(states)


def attentive_decoder(cell, early, summary, y, memory, weights):
    """Returns the features of one row: summary [E], embeddings y [T D], memory [S D] with dot-product attention.
    `weights` by name: pairs of kernel and bias of the layers, and the weights of the cell as in `recurrent`.
    """
    kernel, recurrent_kernel, bias, own_bias = weights["layer"]
    dim, features = len(recurrent_kernel), []

    def attend(query):
        scores = np.exp(memory @ query - (memory @ query).max())
        return scores / scores.sum() @ memory

    def combine(*parts):
        return np.tanh(np.concatenate(parts) @ weights["combine"][0] + weights["combine"][1])

    begin = np.tanh(summary @ weights["bridge"][0] + weights["bridge"][1])
    h, c, attended = begin[:dim], begin[dim:], np.zeros(dim)
    for row in y:
        fed = attend(h) if early else attended
        h, c = cell_step(cell, "after", row @ kernel + bias + fed @ weights["feed"], h, c, recurrent_kernel, own_bias)
        attended = combine(row, h, fed) if early else combine(h, attend(h))
        features.append(attended)
    return np.array(features)


def causal_convolution(x, kernel, bias, dilation):
    """Returns the convolution of x [T F] with kernel [k F G], whose first tap is at the current position."""
    out = np.tile(bias, (len(x), 1))
    for t in range(len(x)):
        for j in range(len(kernel)):
            if t - j * dilation >= 0:
                out[t] += x[t - j * dilation] @ kernel[j]
    return out


def alignment(score, query, memory, weights):
    """Returns the scores [S] of one query [D] for a memory [S E]. `weights`: kernel and bias of the query, kernel of
    the key, vector; those that the score does not use are None.
    """
    query_kernel, query_bias, key_kernel, vector = weights
    scores = []
    for position in memory:
        if score == "additive":
            scores.append(vector @ np.tanh(query @ query_kernel + query_bias + position @ key_kernel))
        elif score == "general":
            scores.append(query @ (position @ key_kernel))
        else:
            scores.append(query @ position / (math.sqrt(len(query)) if score == "scaled" else 1))
    return np.array(scores)


def weight_normed(direction, gain, taps):
    """Returns the kernel [k F G], with norm `gain` for each output."""
    columns = [g * column / math.sqrt((column**2).sum()) for g, column in zip(gain, direction.T, strict=True)]
    return np.array(columns).T.reshape(taps, -1, len(gain))


def tcn_block(x, first, second, shortcut, dilation):
    """`first`, `second`: kernel and bias of a convolution; `shortcut`: of a dense layer, or None."""
    y = np.maximum(causal_convolution(x, *first, dilation), 0)
    y = np.maximum(causal_convolution(y, *second, dilation), 0)
    return np.maximum(y + (x if shortcut is None else x @ shortcut[0] + shortcut[1]), 0)


def wavenet_block(x, convolution, out, dilation):
    """Returns the residual output and the skip output."""
    both = causal_convolution(x, *convolution, dilation)
    dim = x.shape[1]
    z = np.tanh(both[:, :dim]) * sigmoid(both[:, dim:]) @ out[0] + out[1]
    return x + z[:, :dim], z[:, dim:]


def gated_block(x, convolution, dilation, ahead=0):
    """Returns the gated linear unit of a convolution that reads `ahead` positions ahead."""
    later = np.concatenate([x, np.zeros((ahead, x.shape[1]))])
    both = causal_convolution(later, *convolution, dilation)[ahead:]
    dim = x.shape[1]
    return both[:, :dim] * sigmoid(both[:, dim:])


def softmax(scores):
    weights = np.exp(scores - np.max(scores))
    return weights / weights.sum()


def pool(x, members, hidden, vector):
    """Returns the weighted mean of each set of positions of x [S E]; members [N S]."""
    means = []
    for own in members:
        if own.any():
            weights = softmax([vector @ np.tanh(row @ hidden[0] + hidden[1]) for row in x[own]])
            means.append(sum(w * row for w, row in zip(weights, x[own], strict=True)))
        else:
            means.append(np.zeros(x.shape[1]))
    return np.array(means)


def conv_seq2seq(source, target, encoder, decoder):
    """Returns the features of one pair of embedded sequences [S D], [T D]. `encoder`: one convolution (kernel, bias)
    per layer; `decoder`: a convolution and the dense layers of the query and the context per layer.
    """
    half, x = math.sqrt(0.5), source
    for convolution in encoder:
        x = (x + gated_block(x, convolution, 1, len(convolution[0]) // 2)) * half
    keys, values, x = x, (x + source) * half, target
    for convolution, query, mix in decoder:
        y = gated_block(x, convolution, 1)
        context = []
        for t in range(len(x)):
            asked = (y[t] @ query[0] + query[1] + target[t]) * half
            context.append(softmax(keys @ asked) @ values * math.sqrt(len(values)))
        y = (y + np.array(context) @ mix[0] + mix[1]) * half
        x = (x + y) * half
    return x


def transformer_layer(x, memory, mask, memory_mask, post, weights):
    """Returns the output of one row. `weights`: kernels of self-attention and cross-attention, as in `attention`,
    scales and biases of the three normalizations, kernels and biases of the two dense layers of the three adapters,
    if there are any, and of the feed-forward layer.
    """
    own, cross, norms, adapters, *dense = weights

    def attend_to_itself(y):
        return attention(*own, y, y, mask)

    def attend_to_memory(y):
        return attention(*cross, y, memory, np.tile(memory_mask, (len(y), 1)))

    def feed_forward(y, inner, outer):
        return np.maximum(y @ inner[0] + inner[1], 0) @ outer[0] + outer[1]

    branches = attend_to_itself, attend_to_memory, lambda y: feed_forward(y, *dense)
    for branch, norm, adapter in zip(branches, norms, adapters or [None] * 3, strict=True):
        y = branch(x if post else layer_norm(x, *norm))
        x = x + (y if adapter is None else y + feed_forward(y, *adapter))
        x = layer_norm(x, *norm) if post else x
    return x
