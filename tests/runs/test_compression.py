"""`seqlab merge`, `prune` and `quantize`, on small runs."""

import dataclasses
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import seqlab
from seqlab import catalogue
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.parametrizations.fake_quantized import FakeQuantized
from seqlab.parametrizations.quantized import Quantized
from seqlab.runs import checkpoint, manifest, saving
from seqlab.runs.derived import merge
from seqlab.runs.pruning import count_zeros, prune_heads, prune_weights, threshold, total
from seqlab.training.train import train
from seqlab.types import Counted
from tests.command import call, save_untrained

COMMANDS = {"merge": (), "prune": ("--share", "0.5"), "quantize": ()}


def save_run(run, model=None, **changes):
    experiment = dataclasses.replace(tiny_experiment(), **changes)
    if model is not None:
        experiment = dataclasses.replace(experiment, model=model)
    save_untrained(experiment, dict.fromkeys(("source", "target"), tiny_tokenizer()), run, 3, deviation=0.05)
    (run / "data.json").write_text("{}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with an untrained run, and with pruned, quantized and merged runs."""
    home = tmp_path_factory.mktemp("home")
    save_run(home / "run")
    save_run(home / "fake", parametrization=FakeQuantized(bits=4))
    assert call(home, "quantize", "run", "--out", "int8") == 0
    assert call(home, "quantize", "fake", "--out", "int4", "--bits", "4") == 0
    assert call(home, "merge", "int8", "--out", "merged") == 0
    assert call(home, "prune", "run", "--out", "pruned", "--share", "0.5") == 0
    assert call(home, "prune", "pruned", "--out", "sparse", "--share", "0.8", "--per-matrix") == 0
    assert call(home, "prune", "run", "--out", "headless", "--share", "0.5", "--heads") == 0
    return home


def stored(run) -> dict[str, np.ndarray]:
    return flatten_dict(checkpoint.restore(run, manifest.choose_step(run))["params"], sep="/")


def decoded(run) -> dict[str, np.ndarray]:
    """Returns the parameters that decoding uses."""
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(seqlab.load(run).params, sep="/").items()}


@pytest.mark.parametrize("name", ["int8", "int4", "merged", "pruned", "headless"])
def test_the_new_runs_decode(home, name, capsys):
    options = ["--beam", "2", "--max-length", "6"]
    assert call(home, "decode", name, *options, stdin="3 hours\na b\n") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    experiment = catalogue.load_experiment(home / name / "experiment.json")
    expected = {"int8": Quantized(), "int4": Quantized(bits=4)}.get(name)
    assert experiment.parametrization == expected
    assert (home / name / "data.json").read_bytes() == (home / "run" / "data.json").read_bytes()


def test_a_quantized_run_stores_integers(home, capsys):
    base, eight, four = stored(home / "run"), stored(home / "int8"), stored(home / "int4")
    for path, weights in base.items():
        name = f"added/{path.replace('/', '.')}"
        if weights.ndim == 1:
            np.testing.assert_array_equal(eight[path], weights)
            continue
        assert path not in eight
        assert (eight[f"{name}/integers"].dtype, eight[f"{name}/integers"].shape) == (np.int8, weights.shape)
        assert four[f"{name}/integers"].dtype == np.uint8
        assert four[f"{name}/integers"].size == weights.size / 2
        assert eight[f"{name}/scales"].size < weights.size / 3
    restored = decoded(home / "int8")
    table = base["params/words/table"]
    scales = np.abs(table).max(axis=1, keepdims=True) / 127
    np.testing.assert_allclose(restored["params/words/table"], np.round(table / scales) * scales, rtol=1e-5)
    assert call(home, "quantize", "run", "--out", "printed", "--bits", "8") == 0
    sizes, disk, error, out = capsys.readouterr().out.splitlines()
    assert sizes.startswith("parameters: ")
    assert disk.startswith("checkpoint on disk: ")
    assert 0.1 < float(error.removeprefix("root mean square error of the parameters: ").removesuffix("%")) < 2
    assert out == "printed"


def test_large_matrices_take_a_quarter_of_the_space(tmp_path):
    model = tiny_experiment().model.clone(dim=128, hidden=512)
    save_run(tmp_path / "run", model)
    files = {}
    for name, options in (("run", None), ("int8", ()), ("int4", ("--bits", "4"))):
        if options is not None:
            assert call(tmp_path, "quantize", "run", "--out", name, *options) == 0
        folder = tmp_path / name / "checkpoints" / "1" / "state"
        files[name] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert files["int8"] < 0.32 * files["run"]
    assert files["int4"] < 0.22 * files["run"]


def test_quantization_continues_from_rounded_weights(home):
    """A run trained with rounded weights is quantized to these weights, up to one rounding of a scale."""
    fake, four = decoded(home / "fake"), decoded(home / "int4")
    for path, weights in fake.items():
        np.testing.assert_allclose(four[path], weights, rtol=1e-6)


def test_merging_writes_what_decoding_uses():
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "merged"
        save_run(run, parametrization=FakeQuantized(bits=4))
        assert merge(run, out) == 1
        assert catalogue.load_experiment(out / "experiment.json").parametrization is None
        base, merged, applied = stored(run), stored(out), decoded(run)
        assert merged.keys() == base.keys()
        assert all(np.array_equal(merged[path], applied[path]) for path in base)
        assert not any(np.array_equal(merged[path], base[path]) for path in base if base[path].ndim > 1)


def test_training_starts_from_a_merged_run(home, tmp_path):
    assert stored(home / "merged").keys() == stored(home / "run").keys()
    experiment = dataclasses.replace(tiny_experiment(), steps=1)
    train(experiment, tmp_path / "new", tmp_path / "data", home / "merged", say=lambda line: None)


def test_weights_are_pruned_as_in_lists():
    """The smallest weights of all matrices together, or of each, are zero; the others do not change."""
    random = np.random.default_rng(0)
    matrices = {"a/kernel": random.normal(size=(4, 5)), "b/kernel": 3 * random.normal(size=(3, 2, 5))}
    for share, per_matrix in ((0.3, False), (0.5, False), (0.5, True), (0.01, True)):
        pruned = prune_weights(matrices, share, per_matrix)
        groups = [[path] for path in matrices] if per_matrix else [list(matrices)]
        for group in groups:
            magnitudes = sorted(abs(weight) for path in group for weight in matrices[path].ravel().tolist())
            zeros = set(magnitudes[: int(share * len(magnitudes))])
            for path in group:
                old, new = matrices[path].ravel().tolist(), pruned[path].ravel().tolist()
                assert new == [0 if abs(weight) in zeros else weight for weight in old]


def test_thresholds():
    assert threshold(np.array([3.0, 1.0, 2.0, 4.0]), 0.5) == 2.0
    assert threshold(np.array([3.0, 1.0, 2.0, 4.0]), 0.2) == -1.0
    assert threshold(np.arange(100.0), 0.29) == 28.0  # 0.29 * 100 is below 29 in floating point


def test_heads_are_pruned_as_in_loops():
    """The heads with the smallest mean magnitude, over all their matrices, are zero."""
    random = np.random.default_rng(1)
    matrices, axes = {}, {}
    for layer in ("0", "1"):
        for name, shape, axis in (("query", (6, 3, 2), 1), ("out", (3, 2, 6), 0)):
            matrices[f"params/{layer}/{name}/kernel"] = random.normal(size=shape)
            axes[f"params/{layer}/{name}/kernel"] = axis
    means = {}
    for layer in ("0", "1"):
        for head in range(3):
            query, out = (matrices[f"params/{layer}/{name}/kernel"] for name in ("query", "out"))
            means[layer, head] = np.mean(np.abs([*query[:, head].ravel(), *out[head].ravel()]))
    order = sorted(means, key=means.__getitem__)
    by_layer = [next(place for place in order if place[0] == layer) for layer in ("0", "1")]
    for share, separate, zeros in ((0.5, False, order[:3]), (0.4, True, by_layer)):
        pruned = prune_heads(matrices, axes, share, separate)
        for layer, head in means:
            expected = 0 if (layer, head) in zeros else 1
            query, out = (matrices[f"params/{layer}/{name}/kernel"] for name in ("query", "out"))
            np.testing.assert_array_equal(pruned[f"params/{layer}/query/kernel"][:, head], expected * query[:, head])
            np.testing.assert_array_equal(pruned[f"params/{layer}/out/kernel"][head], expected * out[head])


def test_a_pruned_run_has_zeros(home, capsys):
    base, pruned, sparse = (stored(home / name) for name in ("run", "pruned", "sparse"))
    kernels = [path for path in base if path.endswith("kernel")]
    zeros = sum(int((pruned[path] == 0).sum()) for path in kernels)
    assert zeros == int(0.5 * sum(base[path].size for path in kernels))
    for path in base:
        kept = pruned[path] != 0 if path in kernels else np.ones(base[path].shape, bool)
        np.testing.assert_array_equal(pruned[path][kept], base[path][kept])
        if path in kernels:
            assert (sparse[path] == 0).mean() == pytest.approx(0.8, abs=1 / base[path].size)
            assert not np.any(sparse[path][pruned[path] == 0])
    assert call(home, "prune", "run", "--out", "tables", "--share", "0.25", "--pattern", "table$") == 0
    title, row, last, out = capsys.readouterr().out.splitlines()
    assert title.split() == ["kind", "matrices", "weights", "zeros"]
    assert row.split()[0] == "words/table"
    assert last.split()[::3] == ["all", "25.0%"]
    assert out == "tables"
    tables = stored(home / "tables")
    assert {path for path in base if not np.array_equal(tables[path], base[path])} == {"params/words/table"}


def test_whole_heads_are_zero(home):
    """Half of the heads have only zeros in all their matrices, and the other weights do not change."""
    base, headless = stored(home / "run"), stored(home / "headless")
    heads = {}
    for path, weights in headless.items():
        layer, _, name = path.removesuffix("/kernel").rpartition("/")
        if name in ("query", "key", "value", "out"):
            axis = 0 if name == "out" else 1
            for head, part in enumerate(np.moveaxis(weights, axis, 0)):
                heads.setdefault((layer, head), set()).add(bool(np.any(part)))
        else:
            np.testing.assert_array_equal(weights, base[path])
    assert all(len(remaining) == 1 for remaining in heads.values())
    assert sum(remaining == {False} for remaining in heads.values()) == len(heads) // 2


def test_zeros_are_counted_by_kind():
    matrices = {
        "params/a/x/kernel": np.array([[0, 1]]),
        "params/b/x/kernel": np.zeros((2, 2)),
        "params/t": np.ones(1),
    }
    kinds = count_zeros(matrices)
    assert kinds == [("params/t", 1, 1, 0), ("x/kernel", 2, 6, 5)]
    assert total(kinds) == ("all", 3, 7, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prune", "run", "--share", "0"), "--share must be above 0 and below 1, not 0.0"),
        (("prune", "run", "--share", "1"), "--share must be above 0 and below 1, not 1.0"),
        (("prune", "run", "--share", "nan"), "--share must be above 0 and below 1, not nan"),
        (("prune", "run", "--share", "0.5", "--pattern", "nowhere"), "the pattern 'nowhere' matches no matrix of"),
        (("prune", "run", "--share", "0.5", "--pattern", "("), "--pattern: '(' is not a regular expression"),
        (("prune", "run", "--share", "0.01", "--heads"), "run: no weight would change, since the share 0.01 of the"),
        (("prune", "pruned", "--share", "0.4"), "pruned: no weight would change, since the share 0.4 of the weights"),
        (
            ("prune", "run", "--share", "0.5", "--heads", "--pattern", "inner"),
            "the selected matrices of this model have no attention heads: leave out --heads",
        ),
        (("quantize", "run", "--bits", "3"), "--bits must be 8 or 4, not 3"),
        (("merge", "run"), "run has no parametrization to merge: use the run as it is"),
        (("merge", "nowhere"), "nowhere is not a run"),
    ],
)
def test_bad_input_is_one_error(home, arguments, message, capsys):
    assert call(home, *arguments, "--out", "refused") == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"seqlab: {message}")
    assert printed.count("\n") == 1
    assert not list(home.glob("refused*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_existing_folder_is_not_replaced(home, command, capsys):
    (home / "full").mkdir(exist_ok=True)
    (home / "full" / "file").write_text("kept")
    assert call(home, command, "int8", "--out", "full", *COMMANDS[command]) == 2
    assert capsys.readouterr().err == "seqlab: full already exists: choose another --out\n"
    assert (home / "full" / "file").read_text() == "kept"


@pytest.mark.parametrize("command", ["prune", "quantize"])
def test_weights_that_are_not_finite_are_refused(tmp_path, command, capsys):
    save_run(tmp_path / "infinite")
    tree = checkpoint.restore(tmp_path / "infinite", 1)
    params = jax.tree.map(lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, np.float32("inf"), x), tree)
    saving.save_alone(tmp_path / "infinite", {**params, "step": np.int32(1)}, 1, {})
    assert call(tmp_path, command, "infinite", "--out", "refused", *COMMANDS[command]) == 2
    assert "infinite: checkpoint 1 has parameters that are not finite" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["prune", "quantize"])
def test_counted_models_are_refused(home, command, capsys):
    class Bigram(Counted):
        """Has the protocol of counted models."""

    loaded = seqlab.load(home / "run")
    counted = loaded._replace(experiment=SimpleNamespace(model=Bigram()))
    with mock.patch("seqlab.runs.derived.load", return_value=counted):
        assert call(home, command, "run", "--out", "refused", *COMMANDS[command]) == 2
    assert "run: Bigram is counted: its parameters are probabilities" in capsys.readouterr().err


def test_other_runs_cannot_start_from_a_quantized_run(home, tmp_path, capsys):
    (home / "config.py").write_text(
        "from pathlib import Path\nfrom seqlab import catalogue\n"
        "experiment = catalogue.load_experiment(Path('run/experiment.json'))\n"
    )
    train_new = ["train", "config.py", "--data-dir", str(tmp_path), "--steps", "1", "--out"]
    assert call(home, *train_new, "new", "--init-from", "int8") == 2
    assert "from the run that `seqlab merge int8 --out NEW` writes" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["type", "shape", "missing", "bytes"])
def test_a_damaged_run_is_one_error(home, tmp_path, damage, capsys):
    assert call(home, "quantize", "run", "--out", str(tmp_path / "int8")) == 0
    params = checkpoint.restore(tmp_path / "int8", 1)["params"]
    matrix = params["added"]["params.words.table"]
    if damage == "type":
        matrix["integers"] = matrix["integers"].astype(np.float32)
    elif damage == "shape":
        matrix["scales"] = matrix["scales"][:-1]
    elif damage == "missing":
        del matrix["scales"]
    saving.save_alone(tmp_path / "int8", {"params": params, "step": np.int32(1)}, 1, {"quantized": [1]})
    if damage == "bytes":
        state = tmp_path / "int8" / "checkpoints" / "1" / "state"
        largest = max((path for path in state.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    capsys.readouterr()
    assert call(tmp_path, "decode", "int8", stdin="a\n") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("seqlab: int8")
    assert printed.count("\n") == 1
    assert ("damaged" if damage == "bytes" else "the array") in printed


def test_a_changed_number_of_bits_is_one_error(home, tmp_path, capsys):
    assert call(home, "quantize", "run", "--out", str(tmp_path / "int8")) == 0
    path = tmp_path / "int8" / "experiment.json"
    values = json.loads(path.read_text())
    for bits, message in ((4, "the array"), (5, "parametrization.bits must be 8 or 4, not 5"), ("8", "bits")):
        values["parametrization"]["bits"] = bits
        path.write_text(json.dumps(values))
        capsys.readouterr()
        assert call(tmp_path, "decode", "int8", stdin="a\n") == 2
        assert message in capsys.readouterr().err
