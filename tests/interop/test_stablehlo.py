"""The jitted functions that `train` and `decode` call, at the quickstart's shapes, lower for TPU and CUDA."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.config import Search
from seqlab.decoding.outputs import make_outputs
from seqlab.layers.nesting import with_fields
from seqlab.runs.parameters import init_model_parameters
from seqlab.search.requests import RequestBatch
from seqlab.search.searcher import make_mesh, make_searcher, whole_search
from seqlab.search.settings import split_settings
from seqlab.training.state import initial_state, training_step
from seqlab.types import Batch, Tokens

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.py"


@pytest.fixture(scope="module")
def quickstart():
    experiment = catalogue.load_config(CONFIG)
    return catalogue.with_expected_sizes(experiment)


def with_model(experiment, model):
    return dataclasses.replace(experiment, model=model)


def tokens(rows: int, length: int) -> Tokens:
    return Tokens(np.ones((rows, length), np.int32), np.ones((rows, length), bool))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_step(quickstart, platform, dtype):
    experiment = with_model(quickstart, quickstart.model.clone(dtype=dtype))
    inputs = tokens(experiment.batching.tokens // 48, 24)
    batch = Batch(inputs, inputs, inputs.ids, np.ones(inputs.ids.shape, np.float32))
    state = jax.eval_shape(functools.partial(initial_state, experiment), batch)
    step = jax.jit(training_step(experiment), donate_argnums=0)
    exported = jax.export.export(step, platforms=[platform])(state, batch)
    assert exported.platforms == (platform,)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("beam", [1, 5])
def test_search(quickstart, platform, beam):
    model = quickstart.model
    Batch(tokens(1, 2), tokens(1, 2), tokens(1, 2).ids, np.ones((1, 2), np.float32))
    params = jax.eval_shape(functools.partial(init_model_parameters, model, 0))
    settings = split_settings(Search(beam=beam), eos=2)
    searcher = make_searcher(model, settings.static, make_mesh(jax.devices()[:1]))
    search = functools.partial(whole_search, searcher, length=48)
    ones = np.ones(64, np.int32)
    exported = jax.export.export(jax.jit(search), platforms=[platform])(
        params,
        RequestBatch(tokens(64, 24), tokens(64, 1), 48 * ones, ones, ones, None, None),
        settings.weights,
        0,
    )
    assert exported.platforms == (platform,)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_answer(platform):
    """The forward pass and the training step of a classifier."""
    experiment = catalogue.load_config(CONFIG.with_name("debian_section.py"))
    experiment = with_model(experiment, with_fields(experiment.model, vocabulary=experiment.text.size, classes=58))
    inputs = tokens(64, 128).replace(sentences=np.zeros((64, 128), np.int32))
    batch = Batch(inputs, None, np.zeros(64, np.int32), np.ones(64, np.float32))
    state = jax.eval_shape(functools.partial(initial_state, experiment), batch)
    for function, arguments in (
        (jax.jit(training_step(experiment)), (state, batch)),
        (make_outputs(experiment.model), (state.params, inputs)),
    ):
        assert jax.export.export(function, platforms=[platform])(*arguments).platforms == (platform,)
