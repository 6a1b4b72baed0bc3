"""TODO cli.compilations."""

import os
from typing import Annotated

from tyro.conf import arg


def cache(clear: Annotated[bool, arg(help="Remove all compiled programs.")] = False) -> None:
    """Shows the folder of compiled programs, their number and their size, or removes them."""
    from seqlab.system import compilation

    kept = compilation.clear() if clear else compilation.usage()
    print(f"{compilation.cache_folder()}{': removed' if clear else ''}")
    print(f"programs {kept.programs:,}, size {kept.size / 2**20:.1f} MiB, limit {compilation.LIMIT / 2**20:,.0f} MiB")
    if given := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        print(f"not used: $JAX_COMPILATION_CACHE_DIR is set, and JAX uses {given}")
