"""Makes the parts of the proofs available through `--parts`, like custom parts; other tests do not find them."""

from pathlib import Path

import pytest

from seqlab.system import parts

PARTS = Path(__file__).with_name("parts")
parts.use_parts(PARTS)  # so that tests can import them
parts._folders.remove(PARTS)


@pytest.fixture(autouse=True, scope="module")
def registered():
    parts._folders.append(PARTS)
    yield
    parts._folders.remove(PARTS)
