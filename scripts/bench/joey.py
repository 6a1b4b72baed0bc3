"""Compares seqlab with Joey NMT 2.3.0: training the model of a run on its batches, and decoding with its parameters.

    python scripts/bench/joey.py RUN --input F

RUN is a Transformer, pre-norm or post-norm, with sinusoidal positions and one embedding table. Joey NMT builds the
same model from its own config, and uses its own training step (`TrainManager._train_step`, clipping and Adam) and
search. Where its model differs, it is changed: the epsilon of the normalizations (1e-6), the order of sines and
cosines, and the biases of projections. With our parameters it then has our loss for each batch, which is asserted
before anything is timed.

Batches have the same sentences in both toolkits. Ours are padded to the shape of their bucket; those of Joey NMT have
no rows or columns of padding only, as it makes them itself. Tokens per second count target tokens including EOS, but
not padding. There is no dropout. Both use float32 and all cores, with an allocator that keeps freed memory.
"""

import functools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from decode import LENGTH, SIZES, Texts, by_quickest, by_seqlab, compare
from joeynmt.batch import Batch as JoeyBatch
from joeynmt.builders import build_gradient_clipper, build_optimizer
from joeynmt.model import build_model
from joeynmt.search import search
from joeynmt.training import TrainManager
from joeynmt.vocabulary import Vocabulary
from rounds import CORES, in_turns, run_main, seconds, tell, with_allocator
from torch import nn
from torch_models import normalization, put
from train import our_steps
from tyro.conf import Positional, arg

from seqlab.cli.options import DATA_DIR
from seqlab.config import Experiment, Optimizer, Schedule
from seqlab.data.padding import pad
from seqlab.data.text_files import read_lines
from seqlab.evaluation.show_batch import training_batch
from seqlab.layers.embed import sinusoidal
from seqlab.runs import loading
from seqlab.system.compilation import keep_compilations
from seqlab.system.memory import keep_freed_memory
from seqlab.training.state import initial_state
from seqlab.types import Batch, Context

NEAR = 1e-5  # maximum relative difference of losses
RATE = 1e-4
ADAM = Optimizer("adam", beta1=0.9, beta2=0.98, epsilon=1e-8, clip=1.0)
EPSILON = 1e-5  # the epsilon of our layer normalization


def main(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    input: Annotated[Path, arg(metavar="F", help="Source file, one text per line.")],
    data_dir: Path = DATA_DIR,
    batches: int = 12,
    sentences: int = 1000,
    rounds: int = 5,
    beam: int = 5,
) -> None:
    """Print rows for training on the first `batches` of the run, for beam search and for greedy search."""
    keep_compilations()
    keep_freed_memory()
    torch.set_num_threads(CORES)
    loaded = loading.load(run, dtype="float32")
    train([training_batch(run, step, data_dir).batch for step in range(1, batches + 1)], loaded, rounds)
    lines = list(read_lines(input))[:sentences]
    for size in (beam, 1):
        ours, theirs = by_seqlab(loaded, size, "joey"), by_joey(loaded, lines, size)
        compared = compare(loaded, lines, ours, theirs, exact=True)
        everyone = {"seqlab": functools.partial(ours, lines), "joeynmt": functools.partial(theirs, lines)}
        rates = in_turns(everyone, len(lines), rounds)
        kind = f"beam{size}" if size > 1 else "greedy"
        tell(f"decode/{kind}/joeynmt-float32", rates, "seqlab", "joeynmt", "sentences/s", f"text to text; {compared}")


def train(batches: Sequence[Batch], run: loading.Run, rounds: int) -> None:
    model = run.model.clone(dropout=0.0, inner_dropout=None)
    schedule = Schedule("constant", RATE, 1)
    experiment = Experiment(model, run.experiment.task, None, optimizer=ADAM, schedule=schedule)
    params = initial_state(experiment, batches[0]).params
    tokenizer = run.codecs["target"]
    same = [as_joeys(tokenizer, batch) for batch in batches]
    check_equal(experiment, params, batches, twin(model, params, tokenizer, 0.0), same)
    everyone = {"seqlab": our_steps(experiment, batches)}
    smoothing = experiment.task.label_smoothing
    for who, share in {"joeynmt": smoothing, "joeynmt, smoothing 0": 0.0}.items():
        everyone[who] = joeys_steps(twin(model, params, tokenizer, share), same)
    first = ", ".join(f"{who} {seconds(work):.1f} s" for who, work in everyone.items())
    rates = in_turns(everyone, sum(float(batch.weights.sum()) for batch in batches), rounds)
    notes = (
        f"{len(batches)} batches of {len({batch.targets.shape for batch in batches})} shapes, losses equal without "
        f"smoothing; timed with smoothing {smoothing}, in Joey NMT over all words except PAD and the target: "
        + "; ".join(f"{who} {statistics.median(found):.0f}" for who, found in rates.items())
        + f"; first round: {first}"
    )
    for peer in ("joeynmt", "joeynmt, smoothing 0"):
        name = f"train/transformer/{peer.replace(', ', '-').replace(' ', '-')}"
        tell(name, rates, "seqlab", peer, "target tokens/s", notes)


def check_equal(experiment: Experiment, params: Any, batches: Sequence[Batch], theirs: Any, same: list[Any]) -> None:
    """Asserts that the summed losses and the numbers of tokens are equal."""
    loss = jax.jit(functools.partial(experiment.task.loss, experiment.model))
    for batch, other in zip(batches, same, strict=True):
        total, weight, *_ = loss(params, batch, Context())
        with torch.no_grad():
            found = theirs(return_type="loss", **vars(other))[0].item()
        assert weight == other.ntokens, (weight, other.ntokens)
        assert abs(total - found) < NEAR * total, (total, found)


def joeys_steps(model: Any, batches: Sequence[JoeyBatch]) -> Callable[[], object]:
    """Returns the training loop of `TrainManager.train_and_validate`, without logs and validations."""
    asked = {
        "optimizer": ADAM.name,
        "learning_rate": RATE,
        "adam_betas": (ADAM.beta1, ADAM.beta2),
        "clip_grad_norm": ADAM.clip,
        "clip_grad_val": None,
    }
    optimizer, clip = build_optimizer(asked, model.parameters()), build_gradient_clipper(asked)
    manager: Any = SimpleNamespace(
        model=model,
        n_gpu=0,
        scaler=None,
        autocast={"device_type": "cpu", "enabled": False},
        args=SimpleNamespace(normalization="tokens", batch_multiplier=1),
    )

    def work() -> None:
        for batch in batches:
            TrainManager._train_step(manager, batch)
            clip(parameters=model.parameters())
            optimizer.step()
            model.zero_grad()

    return work


def by_joey(run: loading.Run, lines: list[str], beam: int) -> Texts:
    source, target = run.codecs["source"], run.codecs["target"]
    model = twin(run.model, run.params, target, 0.0).eval()

    @torch.inference_mode()
    def written(lines: list[str], size: int) -> list[str]:
        ids = [[*some, source.eos] for some in source.encode(lines)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: list[list[int]] = [[] for _ in ids]
        for at in range(0, len(order), size):
            some = order[at : at + size]
            rows = [np.array(ids[i]) for i in some]
            batch = joeys_batch(target, *pad(rows, max(map(len, rows)), len(rows)))
            written, *_ = search(model, batch, LENGTH, beam, 1.0)
            for i, row in zip(some, written.tolist(), strict=True):
                found[i] = row[: row.index(target.eos)] if target.eos in row else row
        return [*map(target.decode, found)]

    return by_quickest(written, SIZES, lines)


def as_joeys(tokenizer: Any, batch: Batch) -> JoeyBatch:
    """Converts a batch to Joey NMT, whose targets begin with BOS and are shifted by Joey NMT itself."""
    assert batch.inputs is not None
    assert batch.prefix is not None
    mask = batch.prefix.mask
    ids = np.concatenate([batch.prefix.ids[:, :1], batch.targets], axis=1)
    target = without_pads(ids, np.concatenate([mask[:, :1], mask], axis=1))
    return joeys_batch(tokenizer, batch.inputs.ids, batch.inputs.mask, target)


def joeys_batch(tokenizer: Any, ids: np.ndarray, mask: np.ndarray, target: Any = None) -> JoeyBatch:
    source = without_pads(ids, mask)
    return JoeyBatch(
        src=source,
        src_length=(source != tokenizer.pad).sum(1),
        src_prompt_mask=None,
        trg=target,
        trg_prompt_mask=None,
        indices=torch.arange(len(source)),
        device=torch.device("cpu"),
        pad_index=tokenizer.pad,
        eos_index=tokenizer.eos,
    )


def without_pads(ids: np.ndarray, mask: np.ndarray) -> torch.Tensor:
    """Removes the rows and columns that contain only padding."""
    return torch.from_numpy(ids[mask.any(1), : mask.sum(1).max()]).long()


def twin(model: Any, params: Any, tokenizer: Any, smoothing: float) -> Any:
    """Returns the model of Joey NMT with copies of our parameters, and its loss."""
    assert (model.positions, model.tie) == ("sinusoidal", "all"), (model.positions, model.tie)
    given = params["params"]
    side = {
        "type": "transformer",
        "num_heads": model.heads,
        "embeddings": {"embedding_dim": model.dim, "scale": True},
        "hidden_size": model.dim,
        "ff_size": model.hidden,
        "dropout": 0.0,
        "layer_norm": model.norm,
        "activation": model.activation,
    }
    layers = {"encoder": model.encoder_layers, "decoder": model.decoder_layers}
    sides = {name: {**side, "num_layers": count} for name, count in layers.items()}
    words = vocabulary(tokenizer)
    theirs = build_model({**sides, "tied_embeddings": True, "tied_softmax": True}, words, words)
    theirs.loss_function = ("crossentropy", smoothing)
    put(theirs.src_embed.lut.weight, given["words"]["table"])
    bias(theirs.decoder.output_layer, given["words"])
    for i, layer in enumerate(theirs.encoder.layers):
        ours = given["encoder"][f"stack_{i}"]
        attention(layer.src_src_att, ours["self_attention"])
        normalization(layer.layer_norm, ours["self_norm"])
        feed_forward(layer.feed_forward, ours)
    for i, layer in enumerate(theirs.decoder.layers):
        ours = given["decoder"][f"stack_{i}"]
        attention(layer.trg_trg_att, ours["self_attention"])
        attention(layer.src_trg_att, ours["cross_attention"])
        normalization(layer.x_layer_norm, ours["self_norm"])
        normalization(layer.dec_layer_norm, ours["cross_norm"])
        feed_forward(layer.feed_forward, ours)
    for name, stack in (("encoder", theirs.encoder), ("decoder", theirs.decoder)):
        put(stack.pe.pe, sinusoidal(jnp.arange(stack.pe.pe.shape[1]), model.dim)[None])
        if model.norm == "pre":
            normalization(stack.layer_norm, given[name]["last_norm"])
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = EPSILON
    return theirs


def vocabulary(tokenizer: Any) -> Vocabulary:
    """Returns a vocabulary of the same size with placeholder words and our special ids. Joey NMT has UNK first."""
    names = {name: f"<{name}>" for name in ("unk", "pad", "bos", "eos")}
    special = {f"{name}_token": token for name, token in names.items()} | {f"{n}_id": i for i, n in enumerate(names)}
    words = [str(i) for i in range(len(names), tokenizer.size)]
    made = Vocabulary(words, SimpleNamespace(**special, sep_token=None, lang_tags=[]))
    for name in names:
        setattr(made, f"{name}_index", getattr(tokenizer, name))
    return made


def attention(theirs: Any, ours: dict[str, Any]) -> None:
    for name, layer in (
        ("query", theirs.q_layer),
        ("key", theirs.k_layer),
        ("value", theirs.v_layer),
        ("out", theirs.output_layer),
    ):
        linear(layer, ours[name])


def feed_forward(theirs: Any, ours: dict[str, Any]) -> None:
    linear(theirs.pwff_layer[0], ours["feed_forward"]["inner"])
    linear(theirs.pwff_layer[3], ours["feed_forward"]["outer"])
    normalization(theirs.layer_norm, ours["feed_forward_norm"])


def linear(theirs: nn.Linear, ours: dict[str, Any]) -> None:
    put(theirs.weight, np.reshape(ours["kernel"], (theirs.in_features, -1)).T)
    bias(theirs, ours)


def bias(theirs: nn.Linear, ours: dict[str, Any]) -> None:
    """Sets the bias, or removes it if our layer has none."""
    given = np.array(ours["bias"], np.float32).ravel() if "bias" in ours else None
    theirs.bias = None if given is None else nn.Parameter(torch.from_numpy(given))


if __name__ == "__main__":
    with_allocator()
    run_main(main)
