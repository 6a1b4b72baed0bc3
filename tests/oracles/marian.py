"""The model of a Marian folder in NumPy, following transformers: post-norm layers with biases, one table for source,
target and output, and decoding that starts with the pad.
"""

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.oracles.search import log_softmax


def layer_norm(x, arrays, name):
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return normal * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]


def dense(x, arrays, name):
    return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]


def attention(x, memory, mask, arrays, name, heads):
    def split(y):
        return y.reshape(len(y), heads, -1).transpose(1, 0, 2)

    query, key, value = (
        split(dense(y, arrays, f"{name}.{part}_proj")) for y, part in ((x, "q"), (memory, "k"), (memory, "v"))
    )
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    weights = np.exp(log_softmax(np.where(mask, scores, -1e30)))
    return dense((weights @ value).transpose(1, 0, 2).reshape(len(x), -1), arrays, f"{name}.out_proj")


def positions(count, dim):
    angles = np.arange(count)[:, None] / 10_000 ** (2 * np.arange(dim // 2) / dim)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def activation(name, x):
    if name == "relu":
        return np.maximum(x, 0)
    if name == "swish":
        return x / (1 + np.exp(-x))
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def log_probs(folder: Path, source: list[int], target: list[int]) -> np.ndarray:
    """Returns the log-probability of each token of a target [T]. Source and target include EOS."""
    config = json.loads((folder / "config.json").read_text())
    arrays = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
    table, dim = arrays["model.shared.weight"], config["d_model"]
    prefix = [config["decoder_start_token_id"], *target[:-1]]

    def embedded(side, ids):
        own = arrays.get(f"model.{side}.embed_positions.weight", positions(len(ids), dim))
        return table[ids] * math.sqrt(dim) + own[: len(ids)]

    def block(x, name, index, memory, mask):
        heads = config[f"{name}_attention_heads"]
        at = f"model.{name}.layers.{index}"
        x = layer_norm(
            x + attention(x, x, mask, arrays, f"{at}.self_attn", heads), arrays, f"{at}.self_attn_layer_norm"
        )
        if memory is not None:
            y = attention(x, memory, True, arrays, f"{at}.encoder_attn", heads)
            x = layer_norm(x + y, arrays, f"{at}.encoder_attn_layer_norm")
        y = dense(activation(config["activation_function"], dense(x, arrays, f"{at}.fc1")), arrays, f"{at}.fc2")
        return layer_norm(x + y, arrays, f"{at}.final_layer_norm")

    memory = embedded("encoder", source)
    for i in range(config["encoder_layers"]):
        memory = block(memory, "encoder", i, None, True)
    x = embedded("decoder", prefix)
    for i in range(config["decoder_layers"]):
        x = block(x, "decoder", i, memory, np.tril(np.ones((len(x), len(x)), bool)))
    return log_softmax(x @ table.T + arrays["final_logits_bias"])[np.arange(len(target)), target]
