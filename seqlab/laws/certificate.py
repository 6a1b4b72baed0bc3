"""The certificate of a model: the laws that can be checked at its full size."""

from collections.abc import Iterator
from typing import Any

import jax

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
from seqlab.laws.subject import LENGTHS, Subject, make_subject
from seqlab.layers.head import EncoderHead
from seqlab.layers.nesting import with_fields
from seqlab.models.tagger_head import TaggerHead
from seqlab.types import Params, Tagger

MAX_LENGTH = 64  # the longest row of a certificate
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


def certificate(model: Any, params: Params | None = None) -> Iterator[tuple[str, bool, str]]:
    """Yields (name, whether the law holds, details) for the laws of a model at its full size, on a few rows of up to
    64 positions.

    "The past matters" is checked on rows slightly longer than the receptive field of convolutions, or on short rows
    for other models, since the effect of the distant past on a recurrent layer is smaller than rounding errors. The
    values of a causal encoder are checked even if the model reads only the summary.

    If `params` is None, parameters are initialized. Products are float32, regardless of the model's dtype.
    """
    model = with_fields(model, dtype="float32")
    longest = min(MAX_LENGTH, model.longest or MAX_LENGTH)
    short_length = min(max((model.receptive_field or 0) + 2, max(LENGTHS)), longest)
    long, short = (make_subject(model, source=longest, target=n) for n in (longest, short_length))
    if params is not None:
        long, short = long._replace(params=params), short._replace(params=params)
    hides_values = reads_summary_of_causal_encoder(model)
    required_laws = model_laws(model) + ((future_is_unseen,) if hides_values else ())
    for name, laws in CERTIFIED.items():
        if all(law in required_laws for law in laws):
            try:
                s = short if name == "the past matters" else long
                s = with_tagger_head(s) if name == "causal" and hides_values else s
                gaps = [gap for law in laws if isinstance(gap := law(s), float)]
                yield name, True, f"largest difference {max(gaps):.1e}" if gaps else ""
            except LawBroken as broken:
                yield name, False, str(broken)
            except Exception as error:  # a user's model may also break a law by raising an error
                yield name, False, f"{type(error).__name__}: {str(error).splitlines()[0]}"


def reads_summary_of_causal_encoder(model: Any) -> bool:
    return isinstance(model, EncoderHead) and not isinstance(model, Tagger) and model.encoder.causal


def with_tagger_head(s: Subject) -> Subject:
    """Returns a tagger with the encoder of a head, so that the encoder's values can be checked."""
    length = jax.tree.leaves(s.inputs)[0].shape[1]
    tagger = make_subject(TaggerHead(s.model.encoder, classes=3), source=length)
    encoder = s.params["params"]["encoder"]
    return tagger._replace(params={"params": {**tagger.params["params"], "encoder": encoder}})
