"""TODO laws.certificate."""

from collections.abc import Iterator
from typing import Any

from seqlab.laws.equality import LawBroken
from seqlab.laws.generators import (
    carry_continues_the_stream,
    future_is_unseen,
    past_matters,
    reorder_follows_parents,
    segments_are_apart,
    step_agrees_with_features,
)
from seqlab.laws.models import (
    empty_rows_are_finite,
    input_matters,
    longer_padding_changes_nothing,
    pads_are_inert,
    rows_are_independent,
)
from seqlab.laws.registry import Law, model_laws
from seqlab.laws.subject import LENGTHS, make_subject
from seqlab.types import Params

LONG = 64  # the longest row of a certificate

CERTIFIED: dict[str, tuple[Law, ...]] = {
    "padding-inert": (pads_are_inert, longer_padding_changes_nothing),
    "rows independent": (rows_are_independent, empty_rows_are_finite),
    "causal": (future_is_unseen,),
    "the past matters": (past_matters,),
    "the input matters": (input_matters,),
    "step against forward": (step_agrees_with_features,),
    "reorder follows parents": (reorder_follows_parents,),
    "packed texts apart": (segments_are_apart,),
    "state carried": (carry_continues_the_stream,),
}


def certificate(model: Any, task: Any, params: Params | None = None) -> Iterator[tuple[str, bool, str]]:
    """What can be proved of a model at its full size, on a handful of rows of up to 64 positions: a name, whether it
    holds, and more. That the past matters is asked of rows as long as what convolutions see, or else of short ones,
    since what a recurrent layer has of the far past is soon less than rounding.

    `params` are drawn anew if there are none. Products are float32, whatever the model's dtype.
    """
    if hasattr(model, "dtype"):
        model = model.clone(dtype="float32")
    most = min(LONG, getattr(model, "longest", None) or LONG)
    reach = min(max((getattr(model, "receptive_field", None) or 0) + 2, max(LENGTHS)), most)
    features = getattr(task, "features", 0)
    long, short = (make_subject(model, source=most, target=n, features=features) for n in (most, reach))
    if params is not None:
        long, short = long._replace(params=params), short._replace(params=params)
    known = model_laws(model)
    for name, laws in CERTIFIED.items():
        if all(law in known for law in laws):
            try:
                s = short if name == "the past matters" else long
                gaps = [gap for law in laws if isinstance(gap := law(s), float)]
                yield name, True, f"largest difference {max(gaps):.1e}" if gaps else ""
            except LawBroken as broken:
                yield name, False, str(broken)
            except Exception as error:  # a user's model may break a law by not running at all
                yield name, False, f"{type(error).__name__}: {str(error).splitlines()[0]}"
