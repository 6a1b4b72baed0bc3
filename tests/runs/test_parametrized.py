"""Parametrizations that add nothing, that replace base parameters, and whose initial values depend on the base."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab.config import Optimizer
from seqlab.distributed.devices import make_runner
from seqlab.evaluation.diagnosis.diagnose import diagnose
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import Killed, tiny_experiment
from seqlab.parametrizations.fake_quantized import FakeQuantized
from seqlab.parametrizations.keep_zeros import KeepZeros
from seqlab.parametrizations.parametrization import Parametrization, key_of
from seqlab.parametrizations.quantized import Quantized
from seqlab.runs import checkpoint
from seqlab.runs.parameters import init_model_parameters
from seqlab.runs.parametrized import apply_parametrization, init_experiment_parameters, trained_pattern
from seqlab.system.errors import SeqlabError
from seqlab.training.state import initial_state, training_step
from seqlab.training.train import create_state, train
from tests.command import save_untrained
from tests.proofs.runs import check_devices, quiet
from tests.proofs.runs import leaves_of as run_leaves
from tests.subjects import batch_of, subject


def small_subject():
    return subject("transformer", encoder_layers=1, decoder_layers=1, dropout=0.0)


def experiment_of(parametrization, **changes):
    model = small_subject().model
    return dataclasses.replace(tiny_experiment(), model=model, parametrization=parametrization, **changes)


def leaves_of(tree) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(tree, sep="/").items()}


def random_weights(experiment) -> dict[str, np.ndarray]:
    """Returns other weights for the base of an experiment, by path."""
    random, shapes = np.random.default_rng(0), leaves_of(init_model_parameters(experiment.model, 0))
    return {path: random.normal(size=leaf.shape).astype(np.float32) for path, leaf in shapes.items()}


def steps_of(experiment, params, steps=3):
    """Returns the parameters after steps from these parameters."""
    batch = batch_of(small_subject())
    state = initial_state(experiment, batch)
    average = None if state.average is None else params
    state = dataclasses.replace(state, params=params, average=average)
    step = jax.jit(training_step(experiment))
    for _ in range(steps):
        state, _ = step(state, batch)
    return leaves_of(state.params)


@dataclasses.dataclass(frozen=True)
class Part(Parametrization):
    """A parametrization with a mistake, unless it is replaced."""

    replaced: object = frozenset()
    added: object = None

    def init(self, key, base, input_axes):
        return self.added

    def replaces(self, base, input_axes):
        return self.replaced

    def apply(self, base, added):
        return dict(base)


def test_trained_by_default():
    patterns = [trained_pattern(experiment_of(part)) for part in (None, KeepZeros(), Quantized())]
    assert patterns == ["", "", "^added/"]
    optimizer = Optimizer(trainable="scales$")
    assert trained_pattern(experiment_of(Quantized(), optimizer=optimizer)) == "scales$"


def test_nothing_is_added_and_everything_is_trained():
    for parametrization in (KeepZeros(), FakeQuantized()):
        experiment = experiment_of(parametrization)
        params = init_experiment_parameters(experiment)
        assert params.keys() == {"params"}
        before, after = leaves_of(params), steps_of(experiment, params)
        assert not any(np.array_equal(before[path], after[path]) for path in before)


def test_replaced_parameters_are_absent():
    experiment = experiment_of(Quantized())
    base = leaves_of(init_model_parameters(experiment.model, experiment.seed))
    params = init_experiment_parameters(experiment)
    replaced = {path for path, leaf in base.items() if leaf.ndim > 1}
    assert leaves_of(params["params"]).keys() == {path.removeprefix("params/") for path in base.keys() - replaced}
    assert params["added"].keys() == {key_of(path) for path in replaced}
    applied = leaves_of(apply_parametrization(experiment, params))
    assert {path: leaf.shape for path, leaf in applied.items()} == {path: leaf.shape for path, leaf in base.items()}
    for path, leaf in applied.items():
        np.testing.assert_allclose(leaf, base[path], atol=np.abs(base[path]).max() / 250)


def test_added_parameters_are_initialized_from_the_base_of_the_run():
    """The base that training starts from replaces the initial parameters before `init` is called."""
    experiment = experiment_of(Quantized(), optimizer=Optimizer(average=0.9))
    initial = random_weights(experiment)
    make_state = functools.partial(initial_state, experiment, batch_of(small_subject()))
    state = create_state(make_runner(), make_state, experiment, initial)
    for params in (state.params, state.average):
        applied = leaves_of(apply_parametrization(experiment, params))
        for path, weights in initial.items():
            np.testing.assert_allclose(applied[path], weights, atol=np.abs(weights).max() / 250)
    direct = leaves_of(init_experiment_parameters(experiment, initial))
    assert all(np.array_equal(direct[path], leaf) for path, leaf in leaves_of(state.params).items())


def test_only_the_scales_are_trained():
    experiment = experiment_of(Quantized(bits=4), optimizer=Optimizer("adamw", average=0.9, weight_decay=0.1))
    params = init_experiment_parameters(experiment)
    before, after = leaves_of(params), steps_of(experiment, params)
    for path in before:
        assert np.array_equal(before[path], after[path]) != path.endswith("/scales"), path
        assert before[path].dtype == after[path].dtype


def test_zeros_are_kept():
    """Weights of zero stay zero under weight decay, momentum and an average, and the other weights change."""
    optimizer = Optimizer("adamw", average=0.9, weight_decay=0.1)
    experiment = experiment_of(KeepZeros(), optimizer=optimizer)
    kept = {p: x for p, x in random_weights(experiment).items() if p.endswith("kernel")}
    pruned = {path: np.where(np.abs(weights) < 0.7, np.float32(0), weights) for path, weights in kept.items()}
    params = unflatten_dict({**flatten_dict(init_experiment_parameters(experiment), sep="/"), **pruned}, sep="/")
    params = jax.tree.map(jnp.asarray, params)
    after = steps_of(experiment, params)
    for path, weights in pruned.items():
        np.testing.assert_array_equal(after[path] == 0, weights == 0)
        assert not np.any((after[path] == weights) & (weights != 0))
    free = steps_of(dataclasses.replace(experiment, parametrization=None), params)
    assert all(np.any(free[path][weights == 0]) for path, weights in pruned.items())


def test_gradients_pass_through_the_rounding():
    """The value is that of `Quantized`, bit for bit, and the gradient with respect to the exact weights is that with
    respect to the rounded ones.
    """
    base = random_weights(experiment_of(None))
    for bits in (8, 4):
        fake, exact = FakeQuantized(bits), Quantized(bits)
        rounded = fake.apply(base, {})
        matrices = exact.replaces(base, {})
        remaining = {path: leaf for path, leaf in base.items() if path not in matrices}
        expected = exact.apply(remaining, exact.init(jax.random.key(0), base, {}))
        for path, leaf in expected.items():
            np.testing.assert_array_equal(rounded[path], leaf)
        path = next(iter(sorted(matrices)))
        gradient = jax.grad(lambda x, fake=fake, path=path: jnp.sin(fake.apply({path: x}, {})[path]).sum())(
            base[path]
        )
        np.testing.assert_allclose(gradient, np.cos(rounded[path]), rtol=1e-6)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Part(frozenset({"params/nowhere"}), {"a": np.ones(2, np.float32)}), "replaces must return a frozenset of"),
        (Part(["params/words/table"], {"a": np.ones(2, np.float32)}), "replaces must return a frozenset of"),
        (Part(frozenset({"params/words/table"}), {"a": np.ones(2, bool)}), "a must be a floating-point or integer"),
        (Part(frozenset({"params/words/table"}), {"a": np.ones(2, "f4")}), "apply must return a dict whose keys"),
        (Part(frozenset(), {"a": np.ones(2, np.int8)}), "a must be a floating-point array"),
        (Part(frozenset(), {}), "init adds no parameters"),
        (Quantized(pattern="nowhere"), "the pattern 'nowhere' matches no matrix of this model; examples of paths: p"),
        (KeepZeros(pattern="scale$"), "the pattern 'scale\\$' matches no matrix"),
    ],
)
def test_mistakes_are_named(part, message):
    with pytest.raises(SeqlabError, match=message):
        init_experiment_parameters(experiment_of(part))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantized(bits=3), "parametrization.bits must be 8 or 4, not 3"),
        (lambda: FakeQuantized(bits=16), "parametrization.bits must be 8 or 4, not 16"),
        (lambda: Quantized(pattern="["), "parametrization.pattern: '\\[' is not a regular expression"),
        (lambda: KeepZeros(pattern=3), "parametrization.pattern must be of type str"),
    ],
)
def test_fields_are_checked(make, message):
    with pytest.raises(SeqlabError, match=message):
        make()


def test_something_must_be_trained():
    experiment = experiment_of(Quantized(), optimizer=Optimizer(trainable="integers$"))
    with pytest.raises(SeqlabError, match="optimizer.trainable matches only arrays of integers"):
        initial_state(experiment, batch_of(small_subject()))


def test_integers_are_not_diagnosed(tmp_path):
    experiment = dataclasses.replace(tiny_experiment(), parametrization=Quantized())
    with pytest.raises(SeqlabError, match="does not support parameters that are integers"):
        diagnose(experiment, tmp_path / "out", tmp_path / "data", say=quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "part", [Quantized(bits=4), KeepZeros(), FakeQuantized()], ids=lambda part: type(part).__name__
)
def test_devices_agree(tmp_path, part):
    model = tiny_experiment().model.clone(dropout=0.0)
    experiment = dataclasses.replace(tiny_experiment(), model=model, parametrization=part)
    check_devices(experiment, tmp_path / "run", tmp_path / "data")


@pytest.mark.parametrize("parametrization", [Quantized(), KeepZeros()], ids=lambda part: type(part).__name__)
def test_training_starts_from_a_run_and_resumes(tmp_path, parametrization):
    """A killed and resumed run ends bit for bit as an uninterrupted one. The integers are those of the base."""
    codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
    save_untrained(tiny_experiment(), codecs, tmp_path / "base", 5, deviation=0.1)
    experiment = dataclasses.replace(tiny_experiment(), parametrization=parametrization, steps=4)
    train(experiment, tmp_path / "whole", tmp_path / "data", tmp_path / "base", say=quiet)

    def kill(line):
        if line.startswith("step 2:"):
            raise Killed

    with pytest.raises(Killed):
        train(experiment, tmp_path / "cut", tmp_path / "data", tmp_path / "base", say=kill)
    train(experiment, tmp_path / "cut", tmp_path / "data", tmp_path / "base", say=quiet)
    assert checkpoint.fingerprint(tmp_path / "cut", 4) == checkpoint.fingerprint(tmp_path / "whole", 4)
    base, trained = run_leaves(tmp_path / "base"), run_leaves(tmp_path / "whole", 4)
    if isinstance(parametrization, Quantized):
        table = base["params/words/table"]
        expected = np.round(table / (np.abs(table).max(axis=1, keepdims=True) / 127))
        np.testing.assert_array_equal(trained["added/params.words.table/integers"], expected)
        assert "params/words/table" not in trained
    else:
        assert trained.keys() == base.keys()
