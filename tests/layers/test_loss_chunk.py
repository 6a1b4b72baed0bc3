"""The loss in chunks of positions equals the full loss and needs less memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.config import Experiment
from seqlab.data.batches import blank_batch
from seqlab.laws.equality import LawBroken, require_close, require_equal
from seqlab.laws.subject import features_of
from seqlab.layers.losses import generator_loss
from seqlab.runs.parameters import init_model_parameters
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Context
from tests.mutants import Mutant, planted
from tests.subjects import GENERATORS, batch_of, subject

TASKS = ("translation", "language_modeling", "summarization", "dialogue")
TRAINING = Context(jax.random.key(0))
RANDOM = np.random.default_rng(0)
ROWS, LENGTH, DIM, WORDS = 3, 7, 5, 11


def arrays():
    """Returns features, a projection, targets, and weights with pads and an empty row."""
    features, projection = RANDOM.normal(size=(ROWS, LENGTH, DIM)), RANDOM.normal(size=(DIM, WORDS))
    weights = (np.arange(LENGTH) < np.array([[7], [3], [0]])).astype(np.float32)
    targets = RANDOM.integers(0, WORDS, (ROWS, LENGTH))
    return jnp.float32(features), jnp.float32(projection), jnp.asarray(targets), jnp.asarray(weights)


class Given:
    """A model with given features."""

    def __init__(self, features, project):
        self.features, self.project = features, project

    def apply(self, params, *arguments, method, **rest):
        return (self.features, None) if method == "features" else self.project(params, *arguments)


def loss_and_gradients(project, params, batch, features, chunk, loss=generator_loss):
    """Returns the loss, the sums and the gradients of parameters and features of a training step."""

    def objective(params, features):
        loss_sum, weight, sums, _ = loss(Given(features, project), params, batch, TRAINING, 0.1, chunk)
        return loss_sum, {"weight": weight, **sums}

    return jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))(params, features)


def all_close(result, expected):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(expected), strict=True):
        require_close(x, y, jax.tree_util.keystr(path))


def linear(projection, features):
    return features @ projection


@pytest.mark.parametrize("chunk", [1, 8, 20, 1000])
def test_odd_sizes(chunk):
    features, projection, targets, weights = arrays()
    batch = Batch(None, None, targets, weights)
    all_close(*(loss_and_gradients(linear, projection, batch, features, n) for n in (chunk, 0)))


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator(name):
    s = subject(name)
    batch = batch_of(s)
    features = jnp.float32(RANDOM.normal(size=(*s.targets.shape, s.model.dim)))
    project = functools.partial(s.model.apply, method="project")
    all_close(*(loss_and_gradients(project, s.params, batch, features, n) for n in (20, 0)))


def test_a_whole_model():
    """Gradients agree down to the embeddings, with dropout and label smoothing."""
    s = subject("recurrent_lm", layers=1)
    batch = batch_of(s)

    def objective(chunk, params):
        return generator_loss(s.model, params, batch, TRAINING, 0.1, chunk).sum

    all_close(*(jax.jit(jax.value_and_grad(functools.partial(objective, n)))(s.params) for n in (20, 0)))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_evaluates_by_chunks(name):
    task = catalogue.part_class("tasks", name)()
    features, projection, targets, weights = arrays()
    batch = Batch(None, None, targets, weights)
    result, expected = (
        dataclasses.replace(task, loss_chunk=n).loss(Given(features, linear), projection, batch, Context())[:3]
        for n in (8, 0)
    )
    assert result[2].keys() == {"nll", "correct"}
    all_close(result, expected)


def test_a_carry_goes_on():
    s = subject("recurrent_lm")
    batch = batch_of(s).replace(fresh=jnp.array([True, False, True, False, False]))
    _, carry = features_of(s.model, s.params, s.prefix, None)
    result = [generator_loss(s.model, s.params, batch, Context(carry=carry), 0.0, chunk).carry for chunk in (7, 0)]
    jax.tree.map(functools.partial(require_equal, description="carry"), *result)


def test_less_memory_with_a_large_vocabulary():
    task = catalogue.part_class("tasks", "language_modeling")(label_smoothing=0.1)
    model = catalogue.module("models", "transformer_lm").TINY.clone(vocabulary=4000, layers=1)
    batch = jax.tree.map(jnp.asarray, blank_batch(model, 8, 32))
    params = jax.eval_shape(functools.partial(init_model_parameters, model, 0))

    def memory(chunk):
        loss = functools.partial(dataclasses.replace(task, loss_chunk=chunk).loss, model)
        step = jax.jit(jax.grad(lambda params: loss(params, batch, Context(jax.random.key(0)))[0]))
        return step.lower(params).compile().memory_analysis().temp_size_in_bytes

    logits = 8 * 32 * 4000 * 4
    whole, chunked = memory(0), memory(16)
    assert whole >= 2 * logits
    assert chunked < logits / 2


@pytest.mark.parametrize("name", TASKS)
def test_it_is_no_part_of_the_data(name):
    """The identity of a cached plan does not include `loss_chunk`, and an experiment saved without the field is
    unchanged.
    """
    task = catalogue.part_class("tasks", name)
    assert repr(task(loss_chunk=5)) == repr(task())
    model = "transformer" if "source" in task.columns else "recurrent_lm"
    experiment = Experiment(model=catalogue.module("models", model).TINY, task=task(), data=None, steps=1)
    saved = catalogue.to_json(experiment)
    for part, names in (("task", ["loss_chunk"]), ("model", ["remat", "scan"])):
        for name in names:
            saved[part].pop(name, None)
    assert catalogue.from_json(saved) == experiment
    longer = dataclasses.replace(experiment, task=task(loss_chunk=64))
    assert catalogue.from_json(catalogue.to_json(longer)) == longer
    assert catalogue.differences(experiment, longer) == ["task.loss_chunk: 0 -> 64"]


@pytest.mark.parametrize("name", TASKS)
def test_no_fewer_than_none(name):
    with pytest.raises(SeqlabError, match="task.loss_chunk must be at least 0, not -1"):
        catalogue.part_class("tasks", name)(loss_chunk=-1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("jnp.pad(x, ((0, 0), (0, -length % width)", "jnp.pad(x[:, : length // width * width], ((0, 0), (0, 0)"),
        ("x.shape[2:]).swapaxes(0, 1)", "x.shape[2:]).swapaxes(0, 1)[1:]"),
        ("jax.tree.map(jnp.add, sums, sums_of_chunk(*chunk_arrays)), None", "sums_of_chunk(*chunk_arrays), None"),
        ("label_smoothing if train else 0.0)", "label_smoothing if train and not chunk else 0.0)"),
    ],
)
def test_planted_bugs(old, new):
    features, projection, targets, weights = arrays()
    with planted(Mutant("chunks", "layers.losses", old, new, ""), "seqlab.layers.losses") as tasks:
        batch = tasks.Batch(None, None, targets, weights)
        result, expected = (
            loss_and_gradients(linear, projection, batch, features, n, tasks.generator_loss) for n in (8, 0)
        )
    with pytest.raises(LawBroken):
        all_close(result, expected)
