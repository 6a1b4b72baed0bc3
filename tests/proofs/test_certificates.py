"""`seqlab check` on models that read frames and images, and whose outputs are fewer than their inputs."""

import pytest

from seqlab import catalogue
from seqlab.laws.certificate import certificate
from seqlab.laws.subject import models_with

PARTS = [
    ("models", "counted_bigram"),
    ("models", "ctc_head"),
    ("models", "masked_lm"),
    ("readers", "conv_map"),
    ("readers", "frame_stack"),
]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_law_holds(kind, name):
    for model in models_with(catalogue.module(kind, name).TINY):
        results = {name: (holds, details) for name, holds, details in certificate(model)}
        assert all(holds for holds, _ in results.values()), results
        assert {"padding-inert", "rows independent"} <= results.keys()
