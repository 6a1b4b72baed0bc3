"""TODO metrics.accuracy."""

from collections.abc import Sequence

from seqlab.metrics.metric import Counted, Lines, _hits, _means


def _accuracy(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    signature = f"nrefs:{len(references)}|lines:{len(hypotheses)}"
    return _means(_hits(hypotheses, references), ["accuracy"], signature)
