"""PyTorch versions of seqlab models, written in the usual PyTorch style, with our parameters: `twin(model, params)`.

Each is a module from token ids to logits, `forward(source, prefix)`; a language model has no source. There is no
dropout and no padding.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Arrays = dict[str, Any]


def twin(model: Any, params: Any) -> nn.Module:
    """Returns a PyTorch model that computes the same function of ids, with copies of the parameters."""
    made = {"Transformer": Transformer, "RecurrentLM": RecurrentLM, "Bahdanau": Bahdanau, "TCNLM": TCN}
    return made[type(model).__name__](model, params["params"])


def put(parameter: torch.Tensor, value: Any) -> None:
    value = torch.from_numpy(np.array(value, np.float32))
    assert value.shape == parameter.shape, (value.shape, parameter.shape)
    with torch.no_grad():
        parameter.copy_(value)


def linear(given: Arrays) -> nn.Linear:
    """Returns the linear layer of a `Dense` whose kernel has two axes."""
    kernel = np.asarray(given["kernel"])
    made = nn.Linear(*kernel.shape, bias="bias" in given)
    put(made.weight, kernel.T)
    if "bias" in given:
        put(made.bias, given["bias"])
    return made


class Words(nn.Module):
    """Scaled embeddings, and logits with the same or another table."""

    def __init__(self, given: Arrays):
        super().__init__()
        entries, dim = np.shape(given["table"])
        self.table, self.scale = nn.Embedding(entries, dim), dim**0.5
        self.output = nn.Linear(dim, entries)
        put(self.table.weight, given["table"])
        put(self.output.bias, given["bias"])
        if "output" in given:
            put(self.output.weight, np.asarray(given["output"]["kernel"]).T)
        else:
            self.output.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids) * self.scale


class Transformer(nn.Module):
    def __init__(self, model: Any, given: Arrays):
        super().__init__()
        self.words = Words(given["words"])
        layers = (model.encoder_layers, model.decoder_layers)
        self.stacks = nn.Transformer(
            model.dim, model.heads, *layers, model.hidden, 0.0, batch_first=True, norm_first=True
        )
        for stack, ours in ((self.stacks.encoder, given["encoder"]), (self.stacks.decoder, given["decoder"])):
            normalization(stack.norm, ours["last_norm"])
            for i, layer in enumerate(stack.layers):
                one = ours[f"stack_{i}"]
                attention(layer.self_attn, one["self_attention"])
                norms = [layer.norm1, layer.norm2]
                names = ["self_norm", "feed_forward_norm"]
                if "cross_attention" in one:
                    attention(layer.multihead_attn, one["cross_attention"])
                    norms, names = [*norms, layer.norm3], ["self_norm", "cross_norm", "feed_forward_norm"]
                for norm, name in zip(norms, names, strict=True):
                    normalization(norm, one[name])
                for ours_name, theirs in (("inner", layer.linear1), ("outer", layer.linear2)):
                    put(theirs.weight, np.asarray(one["feed_forward"][ours_name]["kernel"]).T)
                    put(theirs.bias, one["feed_forward"][ours_name]["bias"])
        angles = np.arange(1024)[:, None] * 10_000.0 ** (np.arange(model.dim // 2) * (-2 / model.dim))
        positions = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
        self.register_buffer("positions", torch.from_numpy(positions.astype(np.float32)))

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        x, y = (self.words(ids) + self.positions[: ids.shape[1]] for ids in (source, prefix))
        causal = nn.Transformer.generate_square_subsequent_mask(prefix.shape[1], device=prefix.device)
        return self.words.output(self.stacks(x, y, tgt_mask=causal, tgt_is_causal=True))


def normalization(theirs: nn.LayerNorm, ours: Arrays) -> None:
    put(theirs.weight, ours["scale"])
    put(theirs.bias, ours["bias"])


def attention(theirs: nn.MultiheadAttention, ours: Arrays) -> None:
    names, width = ("query", "key", "value"), theirs.embed_dim
    put(theirs.in_proj_weight, np.concatenate([np.reshape(ours[name]["kernel"], (width, -1)).T for name in names]))
    put(theirs.in_proj_bias, np.concatenate([np.ravel(ours[name]["bias"]) for name in names]))
    put(theirs.out_proj.weight, np.reshape(ours["out"]["kernel"], (-1, width)).T)
    put(theirs.out_proj.bias, ours["out"]["bias"])


class RecurrentLM(nn.Module):
    """An LSTM."""

    def __init__(self, model: Any, given: Arrays):
        super().__init__()
        self.words = Words(given["words"])
        self.stack = nn.LSTM(model.dim, model.dim, model.layers, batch_first=True)
        for i in range(model.layers):
            recurrent(self.stack, f"l{i}", given["stack"][f"stack_{i}"])

    def forward(self, source: None, prefix: torch.Tensor) -> torch.Tensor:
        return self.words.output(self.stack(self.words(prefix))[0])


def recurrent(theirs: nn.Module, suffix: str, ours: Arrays) -> None:
    """Copies a recurrent layer, whose gates have the same order. The second bias of a GRU is our candidate bias."""
    bias, dim = np.asarray(ours["bias"]), np.shape(ours["recurrent"])[0]
    suffix = f"_{suffix}" if suffix else ""
    put(getattr(theirs, f"weight_ih{suffix}"), np.asarray(ours["input"]["kernel"]).T)
    put(getattr(theirs, f"weight_hh{suffix}"), np.asarray(ours["recurrent"]).T)
    put(getattr(theirs, f"bias_ih{suffix}"), bias)
    second = np.zeros_like(bias)
    if "candidate_bias" in ours:
        second[2 * dim :] = ours["candidate_bias"]
    put(getattr(theirs, f"bias_hh{suffix}"), second)


class Bahdanau(nn.Module):
    """A GRU encoder-decoder. The decoder runs step by step, because its input depends on its state."""

    def __init__(self, model: Any, given: Arrays):
        super().__init__()
        decoder, encoder, dim = given["decoder"], given["encoder"], model.dim
        self.words = Words(decoder["words"])
        self.encoder = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True)
        recurrent(self.encoder, "l0", encoder["forward_0"])
        recurrent(self.encoder, "l0_reverse", encoder["backward_0"])
        self.key, self.query = linear(given["alignment"]["key"]), linear(given["alignment"]["query"])
        self.vector = nn.Parameter(torch.zeros(dim))
        put(self.vector, given["alignment"]["vector"])
        self.bridge, self.combine = linear(decoder["bridge"]), linear(decoder["combine"])
        kernel = np.concatenate([decoder["layer"]["input"]["kernel"], decoder["feed"]["kernel"]])
        self.cell = nn.GRUCell(2 * dim, dim)
        recurrent(self.cell, "", {**decoder["layer"], "input": {"kernel": kernel}})

    def encode_memory(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the values, the keys and the initial state."""
        values, ends = self.encoder(self.words(source))
        return values, self.key(values), torch.tanh(self.bridge(torch.cat([ends[0], ends[1]], dim=-1)))

    def step(self, y: torch.Tensor, h: torch.Tensor, values: torch.Tensor, keys: torch.Tensor) -> Any:
        scores = torch.tanh(self.query(h)[:, None] + keys) @ self.vector
        context = torch.bmm(scores.softmax(-1)[:, None], values)[:, 0]
        return self.cell(torch.cat([y, context], dim=-1), h), context

    def logits(self, y: torch.Tensor, h: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.words.output(torch.tanh(self.combine(torch.cat([y, h, context], dim=-1))))

    def forward(self, source: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        values, keys, h = self.encode_memory(source)
        embedded, states, contexts = self.words(prefix), [], []
        for y in embedded.unbind(1):
            h, context = self.step(y, h, values, keys)
            states.append(h)
            contexts.append(context)
        return self.logits(embedded, torch.stack(states, dim=1), torch.stack(contexts, dim=1))


class Causal(nn.Module):
    """A causal weight-normalized convolution over [B D T]."""

    def __init__(self, ours: Arrays, kernel: int, dilation: int):
        super().__init__()
        weights = np.asarray(ours["kernel"])  # [kernel inputs, outputs], the latest input first
        taps = weights.reshape(kernel, -1, weights.shape[1])[::-1].transpose(2, 1, 0)
        self.reach = (kernel - 1) * dilation
        made = nn.Conv1d(taps.shape[1], taps.shape[0], kernel, dilation=dilation)
        put(made.weight, taps)
        put(made.bias, ours["bias"])
        self.convolution = nn.utils.parametrizations.weight_norm(made)  # the norm is that of the weights, like ours

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolution(F.pad(x, (self.reach, 0))))


class TCN(nn.Module):
    def __init__(self, model: Any, given: Arrays):
        super().__init__()
        self.words = Words(given["words"])
        self.blocks = nn.ModuleList()
        for i in range(model.layers):
            ours, dilation = given[f"blocks_{i}"], 2 ** (i % model.cycle)
            pair = [Causal(ours[name], model.kernel, dilation) for name in ("first", "second")]
            self.blocks.append(nn.Sequential(*pair))

    def forward(self, source: None, prefix: torch.Tensor) -> torch.Tensor:
        x = self.words(prefix).transpose(1, 2)
        for block in self.blocks:
            x = torch.relu(block(x) + x)
        return self.words.output(x.transpose(1, 2))
