"""With `remat` and `scan`, a model computes the same values, in less memory or with a smaller program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.data.batches import blank_batch
from seqlab.laws.equality import require_close, require_equal
from seqlab.laws.subject import make_subject
from seqlab.layers.losses import generator_loss
from seqlab.layers.nesting import readers_of
from seqlab.runs.parameters import init_model_parameters
from seqlab.types import Context
from tests.mutants import Mutant, planted
from tests.subjects import batch_of, subject

REMAT = ("transformer", "transformer_lm", "recurrent_lm", "sutskever", "tcn_lm")
SCAN = ("transformer", "transformer_lm")


def loss_of(model, batch, params, key):
    return generator_loss(model, params, batch, Context(key), 0.1).sum


@functools.cache
def gradients(name, **changed):
    """Returns the loss and the gradients of a training step, by parameter path."""
    s = subject(name, **({"adapter": 3} if name in SCAN else {}))
    run = jax.jit(jax.value_and_grad(functools.partial(loss_of, s.model.clone(**changed), batch_of(s))))
    loss, result = run(s.params, jax.random.key(1))
    flat, _ = jax.tree_util.tree_flatten_with_path({"loss": loss, **result})
    return {jax.tree_util.keystr(path): x for path, x in flat}


def all_close(result, expected):
    assert result.keys() == expected.keys()
    for name, x in result.items():
        require_close(x, expected[name], name)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", REMAT)
def test_computing_again_changes_nothing(name):
    """Recomputation uses the same dropout masks."""
    all_close(gradients(name, dropout=0.3, remat=True), gradients(name, dropout=0.3))


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("name", SCAN)
def test_a_loop_over_layers_changes_nothing(name, remat):
    all_close(gradients(name, dropout=0.0, scan=True, remat=remat), gradients(name, dropout=0.0))


@pytest.mark.parametrize("name", SCAN)
def test_what_a_loop_computes_again_has_the_same_dropout(name):
    all_close(gradients(name, dropout=0.3, scan=True, remat=True), gradients(name, dropout=0.3, scan=True))


@pytest.mark.parametrize(
    ("name", "changed"), [*((name, {"remat": True}) for name in REMAT), *((name, {"scan": True}) for name in SCAN)]
)
def test_parameters_stay_as_they_are(name, changed):
    changed_subject = subject(name, **changed)
    jax.tree.map(functools.partial(require_equal, description=name), changed_subject.params, subject(name).params)


def test_a_layer_of_a_loop_has_its_own_dropout():
    """Three layers add only biases with dropout, chosen so that the sum reveals the contribution of each layer."""
    model = catalogue.module("models", "transformer_lm").TINY.clone(layers=3, dropout=0.5, scan=True)
    s = make_subject(model)
    params = jax.tree.map(jnp.zeros_like, s.params)
    for layer, value in enumerate((1.0, 16.0, 256.0)):
        outer = params["params"]["decoder"][f"stack_{layer}"]["feed_forward"]["outer"]
        outer["bias"] = jnp.full_like(outer["bias"], value)

    @jax.jit
    def run(key):
        def through(module):
            x = jnp.zeros((5, 6, 8))
            mask = jnp.ones((5, 6, 6), bool)
            return module.decoder.through(x, mask, train=True)

        return model.apply(params, rngs={"dropout": key}, method=through)

    first, second = (np.asarray(run(jax.random.key(i))) for i in (1, 2))
    assert (first != second).any()
    kept = np.stack([first // (2 * value) % 2 for value in (1, 16, 256)])
    assert np.isin(first, [2.0 * (a + 16 * b + 256 * c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]).all()
    assert (abs(kept.mean(axis=(1, 2, 3)) - 0.5) < 0.15).all()
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert abs((kept[a] == kept[b]).mean() - 0.5) < 0.15


def lowered(name, deep=2, **changed):
    """Returns the loss function of a model with the given depth, and the shapes of its parameters."""
    depth = {"encoder_layers": deep, "decoder_layers": deep} if name == "transformer" else {"layers": deep}
    model = subject(name).model.clone(**depth, dim=16, dropout=0.1, **changed)
    catalogue.part_class("tasks", "translation" if readers_of(model) else "language_modeling")()
    batch = jax.tree.map(jnp.asarray, blank_batch(model, 8, 32))
    params = jax.eval_shape(functools.partial(init_model_parameters, model, 0))
    return functools.partial(loss_of, model, batch), params


def bytes_kept(run, params):
    """Returns the number of bytes that the forward pass stores for the backward pass, excluding the parameters."""
    left = jax.eval_shape(lambda params, key: jax.vjp(lambda p: run(p, key), params)[1], params, jax.random.key(0))
    kept, weights = (sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) for tree in (left, params))
    return kept - weights


@pytest.mark.parametrize("name", REMAT)
def test_less_is_kept_for_the_backward_pass(name):
    """With `remat`, an additional layer stores at most a third of the bytes that it stores without."""
    more = {}
    for remat in (False, True):
        kept = [bytes_kept(*lowered(name, deep, remat=remat)) for deep in (1, 2)]
        more[remat] = kept[1] - kept[0]
    assert 0 < 3 * more[True] < more[False], more


@pytest.mark.parametrize("name", SCAN)
def test_a_loop_is_a_small_program_however_deep(name):
    def size(deep, **changed):
        run, params = lowered(name, deep, **changed)
        return len(jax.jit(jax.grad(run)).lower(params, jax.random.key(0)).as_text())

    assert size(5, scan=True) - size(2, scan=True) < 0.2 * (size(5) - size(2))


def test_a_loop_that_computes_again_needs_less_memory():
    def memory(**changed):
        run, params = lowered("transformer_lm", 6, **changed)
        compiled = jax.jit(jax.grad(run)).lower(params, jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(scan=True, remat=True) < 0.5 * memory()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "jax.lax.scan(body, x, (params, keys, drop_rates))",
            "jax.lax.scan(body, x, (params, keys, drop_rates), reverse=True)",
        ),
        ("*[layer_module.variables[", "*[self.stack[0].variables["),
        (
            'jax.random.split(self.make_rng("dropout"), self.layers)',
            'self.make_rng("dropout")[None].repeat(self.layers)',
        ),
    ],
)
def test_planted_bugs(old, new):
    with (
        planted(Mutant("loop", "layers.transformer", old, new, ""), __name__) as mutated,
        pytest.raises(AssertionError),
    ):
        mutated.test_a_loop_over_layers_changes_nothing("transformer_lm", False)
        mutated.test_a_layer_of_a_loop_has_its_own_dropout()
