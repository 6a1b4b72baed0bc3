"""Experiments are found, resolved, saved and loaded, including every config of the project."""

import dataclasses
import functools
import itertools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from seqlab import catalogue
from seqlab.cli.options import SearchFields
from seqlab.config import Search
from seqlab.data.batches import blank_batch
from seqlab.encoders.mean import MeanEncoder
from seqlab.laws.certificate import certificate
from seqlab.laws.tasks import has_classes, tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.layers.nesting import blank_inputs, readers_of, with_fields
from seqlab.metrics.registry import score
from seqlab.readers.words import Words
from seqlab.runs.parameters import init_model_parameters
from seqlab.system import parts
from seqlab.system.errors import SeqlabError
from seqlab.training.checks import check_experiment
from seqlab.training.optimizer import optimizer_at
from seqlab.training.schedule import make_schedule
from seqlab.training.state import initial_state, training_step
from seqlab.types import Context, Generator, Reference, Tokens
from tests.command import call

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.sample(2)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_at_full_size(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = catalogue.load_config(path)
    check_experiment(experiment)
    model = catalogue.with_expected_sizes(experiment).model
    batch = jax.tree.map(jnp.asarray, blank_batch(model, task=experiment.task))
    params = jax.eval_shape(functools.partial(init_model_parameters, model, 0))
    state = jax.eval_shape(
        optimizer_at(experiment.optimizer, make_schedule(experiment.schedule, experiment.steps)).init, params
    )
    context = Context(jax.random.key(0), references={"teacher": Reference(model, params)})  # for configs of students
    loss = jax.eval_shape(functools.partial(experiment.task.loss, model), params, batch, context)
    assert loss.sum.shape == ()
    assert jax.tree.leaves(state)


def fits(model, task):
    """Returns whether a task can train a model: the model has the kind that the task needs, reads a source exactly if
    the task has one, and predicts labels exactly if the task has them. One task needs a certain tagger.
    """
    tiny, part = catalogue.module("models", model).TINY, catalogue.part_class("tasks", task)()
    reads = bool(readers_of(tiny)) or part.model is not Generator
    is_of_kind = isinstance(tiny, part.model) and has_classes(tiny, part) and reads == ("source" in part.columns)
    return is_of_kind and (task != "bidirectional_modeling" or model == "bidirectional_lm")


PAIRS = [pair for pair in itertools.product(catalogue.names("models"), catalogue.names("tasks")) if fits(*pair)]


@pytest.mark.parametrize(("model", "task"), PAIRS)
def test_every_model_with_every_task_of_its_kind(model, task):
    """Exchanging only the model of a config works: a training step, and a decoding step for generators."""
    parts = {"model": catalogue.module("models", model).TINY, "task": catalogue.part_class("tasks", task)()}
    experiment = dataclasses.replace(tiny_experiment(), **parts)
    references = {"teacher": Reference(experiment.model, init_model_parameters(experiment.model, 1))}
    small, batch = (
        jax.tree.map(jnp.asarray, blank_batch(experiment.model, *sizes, experiment.task))
        for sizes in ((2, 2), (3, 5))
    )
    before = jax.eval_shape(functools.partial(initial_state, experiment), small, references)
    after, _ = jax.eval_shape(training_step(experiment), before, batch, references)
    assert jax.tree.map(jnp.shape, after.params) == jax.tree.map(jnp.shape, before.params)
    if experiment.task.model is not Generator:
        return
    run, prompt = experiment.model.apply, Tokens(batch.targets, batch.weights > 0)
    start = functools.partial(run, method="start", capacity=9, hypotheses=4)
    memory, state = jax.eval_shape(start, after.params, batch.inputs, prompt)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves((memory, state)))
    token, t = jax.ShapeDtypeStruct((3, 4), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    logits, state = jax.eval_shape(functools.partial(run, method="step"), after.params, memory, state, token, t)
    assert logits.shape == (3, 4, experiment.model.vocabulary)
    jax.eval_shape(experiment.model.reorder, state, token)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_saved_and_loaded(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = catalogue.load_config(path)
    catalogue.save_experiment(experiment, tmp_path / "experiment.json")
    assert catalogue.load_experiment(tmp_path / "experiment.json") == experiment
    assert catalogue.differences(experiment, experiment) == []


def test_differences_are_named():
    old = tiny_experiment()
    new = dataclasses.replace(old, steps=11, model=old.model.clone(dim=16))
    assert sorted(catalogue.differences(old, new)) == ["model.dim: 8 -> 16", "steps: 10 -> 11"]


def test_resolve():
    codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
    size = tiny_tokenizer().size
    resolved = catalogue.resolve(tiny_experiment(), codecs)
    assert (resolved.model.vocabulary, resolved.model.reader.vocabulary) == (size, size)
    assert catalogue.resolve(resolved, codecs) == resolved
    wrong = dataclasses.replace(resolved, model=resolved.model.clone(vocabulary=5))
    with pytest.raises(SeqlabError, match=r"model\.vocabulary is 5, but the data has"):
        catalogue.resolve(wrong, codecs)


def test_a_model_that_does_not_fit_the_task():
    lm = catalogue.part_class("models", "transformer_lm")()
    with pytest.raises(SeqlabError, match="does not read a source, but Translation has one"):
        catalogue.check_parts(dataclasses.replace(tiny_experiment(), model=lm))
    modeling = catalogue.part_class("tasks", "language_modeling")()
    with pytest.raises(SeqlabError, match="reads the column 'source', but LanguageModeling has only 'target'"):
        catalogue.check_parts(dataclasses.replace(tiny_experiment(), task=modeling))


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("models", "transfomer", "unknown model 'transfomer': did you mean 'transformer'"),
        ("datasets", "zzz", "unknown dataset 'zzz': choose from adding_problem, .*; pass --parts DIR"),
        ("rewards", "x", "unknown reward 'x': seqlab has no built-in ones; pass --parts DIR"),
        ("models", "../config", "unknown model '../config'"),
    ],
)
def test_unknown_parts(kind, name, message):
    with pytest.raises(SeqlabError, match=message):
        catalogue.module(kind, name)


@pytest.mark.parametrize("kind", ["configs", *parts.PART_FOLDERS])
def test_parts_are_listed_with_a_whole_sentence(kind, capsys):
    assert call(ROOT, "list", kind) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines or kind == "rewards"  # seqlab has no built-in rewards
    for line in lines:
        assert line.endswith((".", "?")), line


def test_datasets_by_name():
    assert catalogue.dataset("multi30k/de-en").pair == "de-en"
    assert catalogue.dataset("cldr_phrases").pair == "en-de"
    with pytest.raises(SeqlabError, match="does not accept a value after the slash: use copy_memory --delay 5"):
        catalogue.dataset("copy_memory/5")


@pytest.mark.parametrize(
    "change",
    [
        {"steps_": 3},
        {"model": {"part": "nope"}},
        {"model": {"part": "transformer", "width": 3}},
        {"model": 3},
        {"text": {"kinds": 1}},
    ],
)
def test_a_foreign_experiment_is_one_error(tmp_path, change):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps({**catalogue.to_json(tiny_experiment()), **change}))
    with pytest.raises(SeqlabError):
        catalogue.load_experiment(path)


def test_not_a_run(tmp_path):
    with pytest.raises(SeqlabError, match=r"is not a run: it has no experiment\.json"):
        catalogue.load_experiment(tmp_path / "experiment.json")
    (tmp_path / "experiment.json").write_text("{")
    with pytest.raises(SeqlabError, match=r"experiment\.json: "):
        catalogue.load_experiment(tmp_path / "experiment.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "a config must define `experiment`"),
        ("x = (", r"c\.py:1: "),
        ("experiment = 3", "a config must define"),
    ],
)
def test_bad_configs(tmp_path, text, message):
    path = tmp_path / "c.py"
    path.write_text(text)
    with pytest.raises(SeqlabError, match=message):
        catalogue.load_config(path)
    with pytest.raises(SeqlabError, match=r"the config .* does not exist.*did you mean .*c\.py"):
        catalogue.load_config(tmp_path / "cc.py")


def test_own_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_folders", [])
    with pytest.raises(SeqlabError, match="no parts; expected"):
        parts.use_parts(tmp_path)
    (tmp_path / "models").mkdir()
    source = (ROOT / "seqlab" / "models" / "transformer_lm.py").read_text()
    (tmp_path / "models" / "my_lm.py").write_text(source.replace("TransformerLM", "MyLM"))
    parts.use_parts(tmp_path)
    assert "my_lm" in catalogue.names("models")
    model = catalogue.part_class("models", "my_lm")(layers=1)
    experiment = dataclasses.replace(
        tiny_experiment(), model=model, task=catalogue.part_class("tasks", "language_modeling")()
    )
    assert catalogue.from_json(catalogue.to_json(experiment)) == experiment
    config = tmp_path / "config.py"
    config.write_text(
        "from seqlab_parts.models.my_lm import MyLM\n"
        "from seqlab.laws.training import tiny_experiment\n"
        "from seqlab.tasks.language_modeling import LanguageModeling\n"
        "import dataclasses\n"
        "experiment = dataclasses.replace(tiny_experiment(), model=MyLM(layers=1), task=LanguageModeling())\n"
    )
    assert catalogue.load_config(config) == experiment
    check_experiment(experiment)
    config.write_text(config.read_text().replace("layers=1", "layerz=1"))
    with pytest.raises(SeqlabError, match=r"config\.py:5: TypeError: .*unexpected keyword argument 'layerz'"):
        catalogue.load_config(config)
    (tmp_path / "models" / "empty.py").write_text("")
    with pytest.raises(SeqlabError, match=r"empty\.py: a file of models must define TINY"):
        catalogue.module("models", "empty")


def test_own_metrics(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parts, "_folders", [])
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "vowels.py").write_text(
        "import numpy as np\n"
        "from seqlab.metrics.metric import Metric, count_means\n"
        "def count_vowels(hypotheses, references):\n"
        "    shares = [[100 * sum(c in 'aeiou' for c in line) / len(line)] for line in hypotheses]\n"
        "    return count_means(np.array(shares), ['vowels'], 'nrefs:1')\n"
        "METRICS = {'vowels': Metric('The share of vowels.', count_vowels)}\n"
    )
    with pytest.raises(SeqlabError, match="unknown metric 'vowels'"):
        score("vowels", ["ab"], [["x"]])
    parts.use_parts(tmp_path)
    assert score("vowels", ["ab", "a"], [["x", "y"]])[0].value == 75.0
    (tmp_path / "metrics" / "again.py").write_text(
        "from seqlab.metrics import bleu\nMETRICS = {'bleu': bleu.METRICS['bleu']}\n"
    )
    (tmp_path / "metrics" / "broken.py").write_text("1 / 0\n")
    assert score("vowels", ["ab"], [["x"]])[0].value == 50.0  # unrelated broken files do not matter
    with pytest.raises(SeqlabError, match=r"bleu\.py and .*again\.py define a metric 'bleu': rename one"):
        score("bleu", ["ab"], [["x"]])
    with pytest.raises(SeqlabError, match=r"unknown metric 'bleuu': .*broken\.py cannot be imported: Zero"):
        score("bleuu", ["ab"], [["x"]])
    assert call(tmp_path, "list", "metrics") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("cannot be used" in line for line in lines) == 2


def test_two_files_of_one_name(tmp_path, monkeypatch, capsys):
    """A custom file never silently replaces another part, and does not hide other parts."""
    monkeypatch.setattr(parts, "_folders", [])
    for folder, name in (("a", "words"), ("a", "mine"), ("b", "mine"), ("b", "other")):
        (tmp_path / folder / "readers").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "readers" / f"{name}.py").write_text('"""A reader."""\nTINY = 1\n')
    for folder in ("a", "b"):
        parts.use_parts(tmp_path / folder)
    with pytest.raises(SeqlabError, match=r"a/readers/words\.py: seqlab/readers/words\.py has the same name"):
        catalogue.module("readers", "words")
    with pytest.raises(SeqlabError, match=r"a/readers/mine\.py: .*b/readers/mine\.py has the same name"):
        catalogue.module("readers", "mine")
    assert catalogue.module("readers", "other").TINY == 1
    assert call(tmp_path, "list", "readers", "--json") == 0
    descriptions = json.loads(capsys.readouterr().out)
    assert descriptions["other"] == "A reader."
    assert descriptions["words"].startswith("cannot be used: ")


class Pair(nn.Module):
    readers: tuple[nn.Module, ...] = ()
    vocabulary: int = 0
    encoder: nn.Module | None = None

    @nn.compact
    def __call__(self, inputs):
        return sum(reader.read(x, 8)[0].sum() for reader, x in zip(self.readers, inputs, strict=True))


def test_modules_in_a_tuple():
    pair = Pair((Words(), Words(column="target")), encoder=MeanEncoder(Words()))
    assert readers_of(pair).keys() == {"readers_0", "readers_1", "encoder.reader"}
    filled = with_fields(pair, vocabulary=5, dropout=0.0)
    assert [reader.vocabulary for reader in readers_of(filled).values()] == [5, 5, 5]
    assert filled.encoder.dropout == 0.0
    assert filled.readers[1].column == "target"
    params = jax.eval_shape(filled.init, jax.random.key(0), blank_inputs(filled)[:2])
    assert params["params"].keys() == {"readers_0", "readers_1"}
    with pytest.raises(SeqlabError, match=r"model\.readers_1\.vocabulary is 5, but the data has 277"):
        codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
        catalogue.resolve(dataclasses.replace(tiny_experiment(), model=Pair((Words(), filled.readers[1]))), codecs)


def test_a_model_s_field_of_another_type():
    experiment = tiny_experiment()
    object.__setattr__(experiment.model, "dim", 32.0)  # as in a config; tests check types at once
    with pytest.raises(SeqlabError, match=r"model\.dim must be of type int, not 32\.0"):
        dataclasses.replace(experiment)


def test_a_certificate_says_no_where_a_model_does_not_run(monkeypatch):
    model = catalogue.module("models", "transformer").TINY
    monkeypatch.setattr(type(model), "step", lambda self, memory, state, token, t: (token @ token, state))
    result = {name: (holds, more) for name, holds, more in certificate(model)}
    assert result["causal"] == (True, "")
    assert not result["step against forward"][0]
    assert re.match(r"\w+Error: ", result["step against forward"][1])


def test_the_command_knows_every_field_of_a_search():
    assert [f.name for f in dataclasses.fields(SearchFields)] == [f.name for f in dataclasses.fields(Search)]
