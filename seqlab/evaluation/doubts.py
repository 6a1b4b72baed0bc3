"""Warnings about texts before they are scored."""

from collections.abc import Sequence

from seqlab.metrics.metric import TextLines


def doubts(
    names: Sequence[str], hypotheses: TextLines, references: Sequence[TextLines], tokenized: bool
) -> list[str]:
    """Returns warnings to resolve before scores are cited: texts that look tokenized, unless `tokenized` confirms
    that they are, and letters that ROUGE would drop.
    """
    result = []
    detokenized = [name for name in names if name in ("bleu", "bleu_zh", "chrf", "chrf++")]
    if detokenized and not tokenized:
        for side, lines in (
            ("hypotheses", hypotheses),
            *(("references", reference_lines) for reference_lines in references),
        ):
            ended = [line for line in lines if line.rstrip()[-1:] in (".", "!", "?")]
            apart = sum(line.rstrip()[-2:-1] == " " for line in ended)
            if apart > len(ended) / 2:
                result.append(
                    f"the {side} look tokenized (a space before the end of {apart} of {len(ended)} sentences), "
                    f"but {detokenized[0]} needs detokenized text: pass --tokenized if this is intended"
                )
                break
    if {*names} & {"rouge", "rouge_stemmed"}:
        lost = sum(any(c.isalpha() and not c.isascii() for c in line) for line in references[0])
        if lost:
            result.append(
                f"{lost} of {len(references[0])} references have letters that are not ASCII, which rouge-score's "
                "tokenizer drops: rouge_unicode keeps them"
            )
    return result
