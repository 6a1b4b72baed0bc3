"""Corpus and sentence BLEU (Papineni et al. 2002), computed by sacrebleu."""

from typing import Any

from seqlab.metrics.metric import Metric, sacrebleu_counter


def make_bleu(**settings: Any) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # `force` silences sacrebleu's warning about text that looks tokenized: `evaluation.doubts` reports it.
    return BLEU(force=True, **settings)


def bleu(description: str, label: str = "{}", **settings: Any) -> Metric:
    """Returns the metric. Single lines are scored with sacrebleu's effective order."""
    single = sacrebleu_counter(make_bleu, f"sentence {label}", effective_order=True, **settings)
    return Metric(description, sacrebleu_counter(make_bleu, label, **settings), single)


METRICS: dict[str, Metric] = {
    "bleu": bleu("Corpus BLEU (Papineni et al. 2002), computed by sacrebleu: 13a tokenization, cased."),
    "bleu_zh": bleu("Corpus BLEU with Chinese tokenization: each ideograph is a word.", tokenize="zh"),
    "tokenized_bleu": bleu(
        "Corpus BLEU of text that is already tokenized; comparable only with the same tokenization.",
        "tokenized {}",
        tokenize="none",
    ),
    "tokenized_lc_bleu": bleu(
        "Corpus BLEU of tokenized text, lowercased, which papers before 2018 often report as BLEU.",
        "tokenized lower-cased {}",
        tokenize="none",
        lowercase=True,
    ),
}
