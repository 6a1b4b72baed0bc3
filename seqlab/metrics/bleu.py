"""TODO metrics.bleu."""

from typing import Any

from seqlab.metrics.metric import Metric, _sacrebleu


def _bleu(what: str, label: str = "{}", **settings: Any) -> Metric:
    def make(**settings: Any) -> Any:
        from sacrebleu.metrics.bleu import BLEU

        # The warning it silences, about text that looks tokenized, is `doubts`' here.
        return BLEU(force=True, **settings)

    alone = _sacrebleu(make, f"sentence {label}", effective_order=True, **settings)
    return Metric(what, _sacrebleu(make, label, **settings), alone)
