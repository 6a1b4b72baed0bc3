"""Compilations that are kept from one process to the next."""

import os
from pathlib import Path


def keep_compilations() -> None:
    """Has JAX keep what it compiles under $XDG_CACHE_HOME/seqlab, by default ~/.cache/seqlab, where it may be removed
    at will; or where $JAX_COMPILATION_CACHE_DIR says.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqlab"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
