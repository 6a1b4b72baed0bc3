"""Eight devices of the CPU, and shape annotations checked in everything of seqlab that is imported after this."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Most of the suite's time is compilation: the compiler takes its shortest way, and what it made is kept.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

install_import_hook("seqlab", "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def nothing_compiled_is_kept():
    """A compiled program holds dozens of the 65,530 mappings that Linux gives a process; without them XLA crashes."""
    yield
    import jax  # reads what is set above

    jax.clear_caches()
