"""Translation edit rate (Snover et al. 2006), computed by sacrebleu."""

from typing import Any

from seqlab.metrics.metric import Metric, sacrebleu_counter


def make_ter() -> Any:
    from sacrebleu.metrics.ter import TER

    return TER()


METRICS: dict[str, Metric] = {
    "ter": Metric(
        "Translation edit rate (Snover et al. 2006), computed by sacrebleu: lower is better.",
        sacrebleu_counter(make_ter),
        lower_is_better=True,
    ),
}
