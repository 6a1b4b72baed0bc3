"""chrF2 and chrF2++ (Popović 2015, 2017), F-scores of character n-grams, computed by sacrebleu."""

from typing import Any

from seqlab.metrics.metric import Metric, sacrebleu_counter


def make_chrf(word_order: int = 0) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=word_order)


METRICS: dict[str, Metric] = {
    "chrf": Metric("chrF2 (Popović 2015), by sacrebleu.", sacrebleu_counter(make_chrf)),
    "chrf++": Metric(
        "chrF2++ (Popović 2017), with word n-grams, by sacrebleu.",
        sacrebleu_counter(make_chrf, word_order=2),
    ),
}
