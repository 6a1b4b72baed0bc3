"""Quantization of a trained run: its matrices are stored as integers and scales."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from seqlab.parametrizations.quantized import Quantized, check_bits
from seqlab.runs.base import without_base
from seqlab.runs.checkpoint import byte_count, checkpoint_size
from seqlab.runs.derived import load_matrices, write_run
from seqlab.runs.parametrized import apply_parametrization, parametrize
from seqlab.system.files import check_new
from seqlab.types import Params


class Sizes(NamedTuple):
    """Sizes in bytes before and after quantization: of the parameters as they are stored, and of the files of a
    checkpoint.
    `error` is the root mean square change of the parameters, relative to their root mean square.
    """

    parameters: int
    quantized_parameters: int
    checkpoint: int
    quantized_checkpoint: int
    error: float


def quantize(run: Path, out: Path, bits: int) -> Sizes:
    """Writes the run `out`: the best checkpoint of `run` with the parametrization `Quantized(bits)`.

    Raises `SeqlabError` unless `bits` is 8 or 4.
    """
    check_bits("--bits", bits)
    check_new(out)
    loaded = load_matrices(run)
    experiment = dataclasses.replace(without_base(loaded.experiment), parametrization=Quantized(bits))
    params = jax.tree.map(np.asarray, parametrize(experiment, loaded.params))
    write_run(run, out, experiment, params, "quantized", [loaded.step])
    return Sizes(
        byte_count(loaded.params),
        byte_count(params),
        checkpoint_size(run, loaded.step),
        checkpoint_size(out, loaded.step),
        relative_error(loaded.params, apply_parametrization(experiment, params)),
    )


def relative_error(params: Params, changed: Params) -> float:
    """Returns the root mean square of the change of parameters, relative to their root mean square."""
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(changed), strict=True))
    change = sum(float(np.square(new - old, dtype=np.float64).sum()) for old, new in pairs)
    total = sum(float(np.square(old, dtype=np.float64).sum()) for old, _ in pairs)
    return (change / total) ** 0.5 if total else 0.0
