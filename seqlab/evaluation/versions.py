"""The versions of the packages that scores may depend on."""

import importlib.metadata

PACKAGES = ("jax", "flax", "numpy", "sentencepiece", "sacrebleu", "rouge-score")


def versions() -> dict[str, str]:
    """Returns the versions of seqlab and of the packages that figures may depend on."""
    return {name: importlib.metadata.version(name) for name in ("seqlab", *PACKAGES)}
