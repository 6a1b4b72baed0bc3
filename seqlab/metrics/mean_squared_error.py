"""TODO metrics.mean_squared_error."""

from collections.abc import Sequence

import numpy as np

from seqlab.metrics.metric import Counted, Lines, _means, _one_reference
from seqlab.system.errors import SeqlabError


def _mse(hypotheses: Lines, references: Sequence[Lines]) -> Counted:
    _one_reference(references, "a mean squared error")
    try:
        found, wanted = (np.array(lines, np.float64) for lines in (hypotheses, references[0]))
    except ValueError as error:
        raise SeqlabError(f"a mean squared error is of lines that are numbers: {error}") from None
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        raise SeqlabError("a mean squared error is of lines that are finite numbers")
    return _means(((found - wanted) ** 2)[:, None], ["mean squared error"], f"nrefs:1|lines:{len(found)}")
