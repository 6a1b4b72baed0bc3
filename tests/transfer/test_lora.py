"""LoRA on a GRU language model and on the attention kernels of a Transformer, which have more than two axes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from seqlab import catalogue
from seqlab.config import Optimizer, Parallel
from seqlab.laws.subject import make_subject, passes
from seqlab.layers.nesting import with_fields
from seqlab.parametrizations.lora import Lora
from seqlab.parametrizations.weight_norm import WeightNorm
from seqlab.runs import checkpoint, loading, manifest
from seqlab.runs.parametrized import apply_parametrization, init_experiment_parameters
from seqlab.system.errors import SeqlabError
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.training.train import train
from tests.command import call
from tests.proofs.runs import check_devices, check_resume, leaves_of, losses_of, quiet, small
from tests.transfer.splits import splits_of, warm_day, write_splits


def model(name="recurrent_lm", **changes):
    return catalogue.without_sizes(with_fields(catalogue.module("models", name).TINY, dropout=0.0).clone(**changes))


def modeling(home, **changes):
    return small(model(cell="gru"), LanguageModeling(), splits_of(home, target="text"), **changes)


def adapting(home, **changes):
    """Returns an experiment that copies its base, so that its checkpoints contain all parameters."""
    return modeling(home, parametrization=Lora(), initialize=(("", str(home / "base"), ""),), **changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a base run and an adapted run."""
    home = tmp_path_factory.mktemp("lora")
    write_splits(home, warm_day)
    train(modeling(home), home / "base", home / "data", say=quiet)
    train(adapting(home), home / "run", home / "data", say=quiet)
    return home


@pytest.mark.parametrize("name", ["recurrent_lm", "transformer_lm"])
def test_values_equal_those_of_the_base_at_first(name):
    s = make_subject(with_fields(catalogue.module("models", name).TINY, dropout=0.0))
    experiment = dataclasses.replace(small(s.model, LanguageModeling(), None), parametrization=Lora())
    params = init_experiment_parameters(experiment)
    at_first = passes(s.model)[0](apply_parametrization(experiment, params), s.inputs, s.prefix)
    np.testing.assert_array_equal(at_first, passes(s.model)[0]({"params": params["params"]}, s.inputs, s.prefix))
    kernels = [path for path in flatten_dict(params["params"], sep=".") if path.endswith(("kernel", "recurrent"))]
    assert params["added"].keys() == {f"params.{path}" for path in kernels}


@pytest.mark.parametrize("name", ["recurrent_lm", "transformer_lm"])
def test_gradients_reach_a_once_b_is_perturbed(name):
    s = make_subject(with_fields(catalogue.module("models", name).TINY, dropout=0.0))
    experiment = dataclasses.replace(small(s.model, LanguageModeling(), None), parametrization=Lora())
    params = init_experiment_parameters(experiment)

    def loss(added):
        logits = passes(s.model)[0](apply_parametrization(experiment, {**params, "added": added}), s.inputs, s.prefix)
        return jnp.square(logits).sum()

    still, moved = (
        jax.grad(loss)({path: {"a": pair["a"], "b": pair["b"] + shift} for path, pair in params["added"].items()})
        for shift in (0.0, 0.1)
    )
    assert all(not np.any(pair["a"]) and np.any(pair["b"]) for pair in still.values())
    assert all(np.any(pair["a"]) for pair in moved.values())


def test_a_kernel_of_three_axes_is_a_matrix():
    """A low-rank change of a query kernel [D H E] changes queries by x A B, as computed in NumPy."""
    random = np.random.default_rng(0)
    kernel, x = random.normal(size=(6, 2, 3)).astype(np.float32), random.normal(size=(4, 6)).astype(np.float32)
    added = {"q.kernel": {"a": random.normal(size=(6, 2)), "b": random.normal(size=(2, 6))}}
    changed = Lora(rank=2, alpha=1.0).apply({"q/kernel": kernel}, added)["q/kernel"]
    expected = x @ kernel.reshape(6, 6) + 0.5 * x @ added["q.kernel"]["a"] @ added["q.kernel"]["b"]
    np.testing.assert_allclose((x @ np.asarray(changed).reshape(6, 6)), expected, rtol=1e-4)


def test_the_key_of_a_matrix_is_its_place_among_all_parameters():
    base = {"a/bias": np.zeros(3), "b/kernel": np.zeros((3, 2)), "c/table": np.zeros((9, 2))}
    added = Lora(rank=4).init(jax.random.key(5), base, {})
    assert added.keys() == {"b.kernel"}
    expected = jax.random.normal(jax.random.fold_in(jax.random.key(5), 1), (3, 4)) * 3**-0.5
    np.testing.assert_array_equal(added["b.kernel"]["a"], expected)


def test_a_wrong_pattern_is_refused():
    message = "the pattern 'nowhere' matches no matrix of this model; examples of paths: a/kernel"
    with pytest.raises(SeqlabError, match=message):
        Lora(pattern="nowhere").init(jax.random.key(0), {"a/kernel": np.zeros((2, 3))}, {})
    with pytest.raises(SeqlabError, match="parametrization.rank must be of type int, not '3'"):
        Lora(rank="3")


@pytest.mark.parametrize("parametrization", [Lora(), WeightNorm()])
def test_axes_that_a_layer_does_not_declare_are_refused(parametrization):
    base = {"a/kernel": np.zeros((2, 3, 4))}
    with pytest.raises(SeqlabError, match="a/kernel has 3 axes, but its layer does not declare them: call declare_"):
        parametrization.init(jax.random.key(0), base, {})
    assert parametrization.init(jax.random.key(0), base, {"a/kernel": 2}).keys() == {"a.kernel"}


def test_the_base_is_frozen_bit_for_bit(home):
    base, run = leaves_of(home / "base"), leaves_of(home / "run")
    assert all(np.array_equal(base[path].view(np.uint32), run[path].view(np.uint32)) for path in base)
    added = {path for path in run if path.startswith("added/")}
    assert added == run.keys() - base.keys()
    assert all(np.any(run[path]) for path in added)
    assert losses_of(home / "run")[-1] < losses_of(home / "run")[0]


def test_only_the_added_parameters_have_moments(home):
    tree = checkpoint.restore(home / "run", manifest.choose_step(home / "run", "last"))
    sizes = [np.size(x) for x in jax.tree.leaves(tree["optimizer"])]
    assert sum(sizes) < 3 * sum(np.size(x) for x in jax.tree.leaves(tree["params"]["added"]))


def test_it_resumes_and_is_the_same_on_devices(home):
    check_resume(adapting(home), home / "run", home / "data")
    check_devices(adapting(home), home / "run", home / "data")


@pytest.mark.parametrize("changes", [{"parallel": Parallel("pmap")}, {"optimizer": Optimizer(average=0.9)}])
def test_by_pmap_and_with_an_average(home, tmp_path, changes):
    train(adapting(home, **changes), tmp_path / "run", home / "data", say=quiet)
    base, run = leaves_of(home / "base"), leaves_of(tmp_path / "run")
    assert all(np.array_equal(base[path], run[path]) for path in base)


def test_a_loaded_run_is_merged(home, capsys):
    """Decoding and evaluation use the base parameters and the adapter together."""
    run = loading.load(home / "run", "last")
    stored, kernel = leaves_of(home / "run"), "params/stack/stack_0/input/kernel"
    pair = [stored[f"added/{kernel.replace('/', '.')}/{name}"] for name in "ab"]
    merged = run.params["params"]["stack"]["stack_0"]["input"]["kernel"]
    np.testing.assert_allclose(merged, stored[kernel] + pair[0] @ pair[1], rtol=1e-5)
    assert "added" not in run.params
    arguments = ["evaluate", "run", "--data-dir", "data", "--split", "validation", "--json"]
    assert call(home, *arguments, "--checkpoint", "last") == 0
    scores = {score["name"]: score["value"] for score in json.loads(capsys.readouterr().out)["scores"]}
    records = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = next(r["validation perplexity"] for r in records if r["step"] == 8 and "validation perplexity" in r)
    assert scores["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_a_rank_on_the_command_line(home):
    (home / "config.py").write_text(
        "from seqlab import catalogue\n"
        "from seqlab.parametrizations.lora import Lora\n"
        "import dataclasses\n"
        f"base = catalogue.load_experiment(__import__('pathlib').Path({str(home / 'base' / 'experiment.json')!r}))\n"
        "experiment = dataclasses.replace(base, parametrization=Lora())\n"
    )
    arguments = ["train", "config.py", "--out", "wider", "--data-dir", "data", "--init-from", "base", "--steps", "1"]
    assert call(home, *arguments, "--parametrization.rank", "3") == 0
    assert catalogue.load_experiment(home / "wider" / "experiment.json").parametrization == Lora(rank=3)


def test_a_merged_adapter_is_a_base(home):
    """The merged run has the parameters that decoding uses, and another run can start from it."""
    assert call(home, "merge", "run", "--out", "merged") == 0
    merged, applied = loading.load(home / "merged"), loading.load(home / "run")
    assert merged.experiment.parametrization is None
    assert jax.tree.all(jax.tree.map(np.array_equal, merged.params, applied.params))
    train(modeling(home, steps=4), home / "next", home / "data", init_from=home / "merged", say=quiet)
