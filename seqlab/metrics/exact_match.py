"""TODO metrics.exact_match."""

from collections.abc import Sequence

from seqlab.metrics.metric import Counted, Lines, _hits, _means


def _exact_match(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    return _means(_hits(hypotheses, references), ["exact match"], f"nrefs:{len(references)}|case:mixed")
