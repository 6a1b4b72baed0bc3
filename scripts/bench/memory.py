"""Measures the memory that remat, scan and a chunked loss save: python scripts/bench/memory.py

"saved" is the size of the activations that the forward pass stores for the backward pass, computed from shapes.
"temporary" is the temporary memory that the compiled gradient reports on the devices of this machine.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax.extend.core import Var
from rounds import run_main

from seqlab.data.batches import blank_batch
from seqlab.models.recurrent_lm import RecurrentLM
from seqlab.models.transformer import Transformer
from seqlab.models.transformer_lm import TransformerLM
from seqlab.readers.words import Words
from seqlab.runs.parameters import init_model_parameters
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.tasks.translation import Translation
from seqlab.types import Context

DEEP = TransformerLM(vocabulary=32_000, layers=6, dim=512, heads=8, hidden=2048)
BASE = Transformer(Words(37_000), vocabulary=37_000)
LSTM = RecurrentLM(vocabulary=10_000, layers=2, dim=650)
SMALL = TransformerLM(vocabulary=100, layers=8, dim=64, heads=4, hidden=256)
WIDE = TransformerLM(vocabulary=32_000, layers=1, dim=64, heads=4, hidden=256)
LINES, PAIRS = LanguageModeling(), Translation()


def loss_of(model: Any, task: Any, rows: int, length: int) -> Any:
    """Returns (the loss as a function of the parameters, the shapes of the parameters)."""
    batch = blank_batch(model, rows, length)
    params = jax.eval_shape(functools.partial(init_model_parameters, model, 0))
    return lambda p: task.loss(model, p, batch, Context(jax.random.key(0)))[0], params


def mebibytes(tree: Any) -> float:
    """Returns the size of a tree in MiB, without random keys, which are a few bytes."""
    leaves = [x for x in jax.tree.leaves(tree) if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return sum(np.prod(x.shape) * np.dtype(x.dtype).itemsize for x in leaves) / 2**20


def left_behind(loss: Any, params: Any) -> float:
    """Returns the size of what the forward pass stores for the backward pass, without its inputs, in MiB."""
    program = jax.make_jaxpr(lambda p: jax.tree.leaves(jax.vjp(loss, p)[1]))(params).jaxpr
    left = {one for one in program.outvars if isinstance(one, Var)} - {*program.invars, *program.constvars}
    return mebibytes([one.aval for one in left])


def temporary(*given: Any) -> float:
    loss, params = loss_of(*given)
    return jax.jit(jax.grad(loss)).lower(params).compile().memory_analysis().temp_size_in_bytes / 2**20


def main() -> None:
    for name, model, task, rows, length in (
        ("language model, 6 x 512", DEEP, LINES, 8, 256),
        ("base Transformer", BASE, PAIRS, 32, 64),
        ("LSTM, 2 x 650", LSTM, LINES, 20, 128),
    ):
        without, with_it = (
            left_behind(*loss_of(model.clone(remat=remat), task, rows, length)) for remat in (False, True)
        )
        print(f"saved, {name:24} {without:8,.0f} MiB; remat {with_it:8,.0f} MiB", flush=True)
    for remat, scan in ((False, False), (True, False), (False, True), (True, True)):
        found = temporary(SMALL.clone(remat=remat, scan=scan), LINES, 8, 128)
        print(f"temporary, 8 layers, remat {remat!s:5} scan {scan!s:5} {found:8.1f} MiB", flush=True)
    for chunk in (0, 256):
        found = temporary(WIDE, LanguageModeling(loss_chunk=chunk), 8, 128)
        print(f"temporary, 32,000 words, loss_chunk {chunk:3} {found:8.1f} MiB", flush=True)


if __name__ == "__main__":
    run_main(main)
