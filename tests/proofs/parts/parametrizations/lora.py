"""Low-rank adapters (Hu et al. 2022): W + scale A B for each kernel that a pattern selects."""

import math
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from seqlab.parametrizations.parametrization import Parametrization


@dataclass(frozen=True)
class Lora(Parametrization):
    rank: int = 2
    scale: float = 1.0
    pattern: str = "(kernel|recurrent)$"

    def init(self, key, base, input_axes):
        added = {}
        for i, (path, leaf) in enumerate(sorted(base.items())):
            if leaf.ndim > 1 and re.search(self.pattern, path):
                count = 1 if leaf.ndim == 2 else input_axes[path]
                rows, columns = math.prod(leaf.shape[:count]), math.prod(leaf.shape[count:])
                a = jax.random.normal(jax.random.fold_in(key, i), (rows, self.rank)) * rows**-0.5
                added[path.replace("/", ".")] = {"a": a, "b": jnp.zeros((self.rank, columns))}
        return added

    def apply(self, base, added):
        deltas = {name.replace(".", "/"): self.scale * pair["a"] @ pair["b"] for name, pair in added.items()}
        return base | {path: base[path] + delta.reshape(base[path].shape) for path, delta in deltas.items()}


PARAMETRIZATION = Lora
