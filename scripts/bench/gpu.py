"""Compares training steps with PyTorch and beam search with transformers, on one GPU.

    python scripts/bench/gpu.py [--only transformer_big lstm tcn decode] [--rounds 5] [--tiny]

transformer_big is the big Transformer of Vaswani et al. 2017 (table 3) with a vocabulary of 32,768 and pre-norm
layers, in bfloat16. The PyTorch model is compiled or eager, with autocast and scaled_dot_product_attention. lstm is
the large LSTM of Zaremba et al. 2014, compared with cuDNN; tcn is the TCN of `train.py`. Both use float32, with the
operands of products rounded to TF32 in both toolkits. `limit_fraction` is the rate of the model's matrix products, as
a fraction of the rate of plain products of 8,192 x 8,192 matrices of the same dtype in the same run.

decode is the base Transformer, post-norm, also in float32, with random weights: a beam of 5 for 1, 64 and 1,024
sources of 20 to 30 tokens, passed in one call, and exactly 32 output tokens for each. If transformers is not
installed, there is no peer.

Before anything is timed, both toolkits must have the same loss, and the outputs for up to 64 sources are compared, in
float32 without TF32: a row reports how many texts are equal, near-ties, or different.

Requires JAX and PyTorch for CUDA, flax, optax, orbax, tyro and jaxtyping, and for the peer of decode transformers and
safetensors. Downloads nothing, and seqlab need not be installed. For a machine without a network:

    pip wheel -w wheels tyro jaxtyping                        # on a machine with a network
    pip install --no-index --find-links wheels tyro jaxtyping # on the machine with the GPU
    PYTHONPATH=. python scripts/bench/gpu.py                  # there, in the repository

Exits with 69 if there is no GPU that both toolkits can use.
"""

import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from rounds import check_names, in_turns, seconds, tell, with_allocator
from train import CASES as ON_CPU
from train import Case, compare, in_float32, matrix_rate
from tyro.conf import arg

from seqlab.codecs.marian import Marian
from seqlab.config import Experiment, Optimizer, Search
from seqlab.layers.nesting import with_fields
from seqlab.models.recurrent_lm import RecurrentLM
from seqlab.models.transformer import Transformer
from seqlab.readers.words import Words
from seqlab.runs.parameters import init_model_parameters
from seqlab.search.forced import token_log_probs
from seqlab.search.generate import generate
from seqlab.search.requests import Request
from seqlab.search.settings import split_settings
from seqlab.tasks.translation import Translation
from seqlab.types import Params

NEAR = 1e-4  # maximum difference of the mean log-probabilities per token of a near-tie
OTHERS = 0.05  # maximum fraction of texts that differ: with random weights all words are almost equally likely
NO_GPU = 69  # an exit code that no other error has
BEAM, PAD, BOS, EOS, UNK = 5, 0, 1, 2, 3
WORDS: dict[str, Any] = {"reader": Words(32_768), "vocabulary": 32_768}
BIG = Transformer(**WORDS, dim=1024, heads=16, hidden=4096, dropout=0.0, biases=True, dtype="bfloat16")
CASES = {
    "transformer_big": Case(BIG, Optimizer("adam", clip=0.0), 64, 64, 64, 20),
    "lstm": Case(RecurrentLM(vocabulary=10_000, dim=1500, dropout=0.0), Optimizer("sgd", clip=10.0), 20, 0, 35, 20),
    "tcn": ON_CPU["tcn"]._replace(steps=20),
}


class Decoding(NamedTuple):
    model: Transformer
    sentences: tuple[int, ...]
    length: int
    """The number of output tokens."""


DECODING = Decoding(Transformer(**WORDS, norm="post"), (1, 64, 1024), 32)
SMALL = {
    "vocabulary": 64,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **{"dim": 32, "heads": 2, "hidden": 64},
}

Texts = Callable[[list[list[int]]], list[list[int]]]


def main(
    only: tuple[str, ...] = (*CASES, "decode"),
    rounds: int = 5,
    tiny: Annotated[bool, arg(help="Use tiny sizes on any device, to test the script.")] = False,
) -> None:
    """Print a row for each comparison."""
    check_names(only, [*CASES, "decode"])
    device = find_device(tiny)
    import torch

    torch.set_float32_matmul_precision("high")  # TF32, which is JAX's default
    cases = {name: smaller(case) for name, case in CASES.items()} if tiny else CASES
    decoding = Decoding(small(DECODING.model), (1, 3), 4) if tiny else DECODING
    peaks = {kind: matrix_rate(256 if tiny else 8192, kind, 10) for kind in ("float32", "bfloat16")}
    rates = ", ".join(f"{peak / 1e12:.2f} TFLOP/s in {kind}" for kind, peak in peaks.items())
    print(f"# {jax.devices()[0].device_kind}, jax {jax.__version__}, torch {torch.__version__}: {rates}", flush=True)
    for name in only:
        if name == "decode":
            decode(decoding, rounds, device)
        else:
            kind = cases[name].model.dtype
            compare(f"gpu/train/{name}", cases[name], rounds, peaks[kind], (kind,), device)


def find_device(tiny: bool) -> str:
    """Returns the PyTorch name of the device. Exits if a GPU is needed and there is none."""
    platform = jax.default_backend()
    if platform == "gpu" or tiny:
        import torch

        if platform == "gpu" and torch.cuda.is_available():
            return "cuda"
        if tiny:
            return "cpu"
    print(f"gpu.py: no GPU that JAX ({platform}) and PyTorch can use; --tiny runs on any device", file=sys.stderr)
    raise SystemExit(NO_GPU)


def small(model: Any) -> Any:
    return with_fields(model, **SMALL)


def smaller(case: Case) -> Case:
    return case._replace(model=small(case.model), rows=4, source=min(case.source, 8), target=8, steps=1)


def decode(decoding: Decoding, rounds: int, device: str) -> None:
    """Prints rows of sentences per second, from ids to ids."""
    model, counts, length = decoding
    random = np.random.default_rng(0)
    sources = [
        random.integers(UNK + 1, model.vocabulary, random.integers(20, 31)).tolist() for _ in range(max(counts))
    ]
    params = init_model_parameters(model, 0)
    everyone, peer = {"seqlab": by_seqlab(model, params, length)}, None
    notes = "transformers is not installed"
    if importlib.util.find_spec("transformers"):
        peer = "transformers"
        everyone[peer] = by_transformers(model, params, length, device)
        notes = agreement(model, params, sources[:64], everyone["seqlab"], everyone[peer])
    for count in counts:
        work = {who: functools.partial(texts, sources[:count]) for who, texts in everyone.items()}
        first = ", ".join(f"{who} {seconds(one):.1f} s" for who, one in work.items())
        print(f"# decode, {count} sources, first time: {first}", flush=True)
        rates = in_turns(work, count, rounds)
        tell(f"gpu/decode/beam{BEAM}/batch{count}/transformers-float32", rates, "seqlab", peer, "sentences/s", notes)


def by_seqlab(model: Transformer, params: Params, length: int) -> Texts:
    settings = split_settings(Search(beam=BEAM, preset="hf"), eos=EOS)

    def texts(sources: list[list[int]]) -> list[list[int]]:
        requests = [Request(source, [BOS], length, minimum=length + 1) for source in sources]  # EOS is forbidden
        return [best.ids for [best] in generate(model, params, requests, settings)]

    return texts


def by_transformers(model: Transformer, params: Params, length: int, device: str) -> Texts:
    import torch
    from transformers import MarianMTModel

    from seqlab.interop.marian import export_marian
    from seqlab.runs.loading import Run

    pieces = Marian(b"", tuple(f"piece {i}" for i in range(model.vocabulary)), PAD, BOS, EOS, UNK)
    experiment = Experiment(model, Translation(), None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "marian"
        run = Run(folder, 0, experiment, {"source": pieces, "target": pieces}, params, model)
        export_marian(run, folder)
        theirs = MarianMTModel.from_pretrained(folder).eval().to(device)
    theirs.generation_config.max_length = None

    @torch.inference_mode()
    def texts(sources: list[list[int]]) -> list[list[int]]:
        ids = np.full((len(sources), max(map(len, sources))), theirs.config.pad_token_id)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = source
        inputs = torch.from_numpy(ids).to(device)
        written = theirs.generate(
            input_ids=inputs,
            attention_mask=(inputs != theirs.config.pad_token_id).long(),
            num_beams=BEAM,
            min_new_tokens=length,
            max_new_tokens=length,
            length_penalty=1.0,
            early_stopping=False,
        )
        return written[:, 1:].tolist()  # without the start token

    return texts


def agreement(model: Transformer, params: Params, sources: list[list[int]], ours: Texts, theirs: Texts) -> str:
    """Counts the texts with equal tokens, and the near-ties by our forced pass, in float32. Asserts that texts have
    equal lengths.
    """
    with in_float32():
        pairs = [pair for pair in zip(sources, ours(sources), theirs(sources), strict=True) if pair[1] != pair[2]]
        assert all(len(a) == len(b) for _, a, b in pairs)
        requests = [Request(source, [BOS], 0) for source, _, _ in pairs]
        scores = [
            [x.mean() for x in token_log_probs(model, params, requests, [pair[i] for pair in pairs])] for i in (1, 2)
        ]
    near = sum(abs(a - b) < NEAR for a, b in zip(*scores, strict=True))
    others = len(pairs) - near
    assert others <= OTHERS * len(sources), others
    return f"{len(sources)} texts: {len(sources) - len(pairs)} equal, {near} near-ties, {others} others"


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves memory for PyTorch
    with_allocator()
    tyro.cli(main)
