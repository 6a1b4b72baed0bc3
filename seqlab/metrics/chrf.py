"""TODO metrics.chrf."""

from typing import Any


def _chrf(word_order: int = 0) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=word_order)
