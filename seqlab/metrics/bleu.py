"""Corpus and sentence BLEU (Papineni et al. 2002), by sacrebleu."""

from typing import Any

from seqlab.metrics.metric import Metric, sacrebleu_counter


def make_bleu(**settings: Any) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # `force` silences sacrebleu's warning about text that looks tokenized: `evaluation.doubts` reports it.
    return BLEU(force=True, **settings)


def bleu(description: str, label: str = "{}", **settings: Any) -> Metric:
    """Returns the metric. A single line is scored by the orders of n-grams that it is long enough for."""
    single = sacrebleu_counter(make_bleu, f"sentence {label}", effective_order=True, **settings)
    return Metric(description, sacrebleu_counter(make_bleu, label, **settings), single)


METRICS: dict[str, Metric] = {
    "bleu": bleu("Corpus BLEU (Papineni et al. 2002) by sacrebleu: 13a tokenization, cased."),
    "bleu_zh": bleu("The same with Chinese tokenization: each ideograph is a word.", tokenize="zh"),
    "tokenized_bleu": bleu(
        "Corpus BLEU by sacrebleu of text that is tokenized already; compare only with the same tokenization.",
        "tokenized {}",
        tokenize="none",
    ),
    "tokenized_lc_bleu": bleu(
        "The same, lower-cased: what papers before 2018 often call BLEU, and no other figure's peer.",
        "tokenized lower-cased {}",
        tokenize="none",
        lowercase=True,
    ),
}
