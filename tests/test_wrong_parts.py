"""A part with a mistake gives one error, which names the part and says what it must do."""

import dataclasses
import json
from types import SimpleNamespace
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.codecs.codec import Codec
from seqlab.codecs.label import Label
from seqlab.config import Experiment, Text
from seqlab.data.batches import blank_batch, make_batch
from seqlab.data.corpus import encode_examples
from seqlab.data.plans import BatchPlan
from seqlab.data.task import Prediction, check_task
from seqlab.decoding.predictions import format_prediction, predict_rows
from seqlab.encoders.mean import MeanEncoder
from seqlab.laws.training import tiny_experiment
from seqlab.metrics.metric import count_means
from seqlab.metrics.registry import checked_counts, load_metrics
from seqlab.models.classifier_head import TINY
from seqlab.parametrizations.parametrization import Parametrization
from seqlab.readers.words import Words
from seqlab.rewards.reward import Reward, rewards_of
from seqlab.runs.parametrized import init_experiment_parameters
from seqlab.system import parts
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.training.checks import check_experiment, check_reader
from seqlab.training.prepare import fit_codec
from seqlab.training.state import initial_state


class Letters(Codec):
    """A codec whose `encode` returns `given` for two values."""

    size = 10

    def __init__(self, given=((1,), (2, 3))):
        self.given = given

    def encode(self, values):
        return self.given

    def save(self):
        return b"letters"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "encode must return a list of rows"),
        ([None, [1]], "encode must return a list of rows"),
        ([[1]], "encode must return one row for each of 2 values, not 1"),
        ([[1], [[2], [3, 4]]], "encode must return rows that are arrays of <i4"),
        ([[1], [None]], "encode must return rows that are arrays of <i4"),
        ([[1], ["x"]], "encode must return rows that are arrays of <i4"),
        ([[1], [1 << 40]], "encode returns int64 elements, not <i4"),
        ([[1], [2.5]], "encode returns float64 elements, not <i4"),
        ([np.ones((2, 3), "<i4"), [1]], r"encode returns elements of shape \(3,\), not \(\)"),
        ([[1], [2, 10]], "encode returns ids from 1 to 10, but a codec of size 10 allows only 0 to 9"),
        ([[-1], []], "encode returns ids from -1 to -1, but a codec of size 10 allows only 0 to 9"),
    ],
)
def test_a_codec_that_encodes_wrongly(tmp_path, given, message):
    examples = [{"source": "a"}, {"source": "b"}]
    with pytest.raises(SeqlabError, match=f"Letters.{message}"):
        encode_examples(examples, 2, "content", {"source": Letters(given)}, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert not [path for path in folder.iterdir() if path.is_dir()]  # nothing is stored
    encode_examples(examples, 2, "content", {"source": Letters()}, tmp_path)


class OtherFit(Letters):
    def fit(self, read, text):
        return Other()


class Other(Letters):
    @classmethod
    def load(cls, content, place):
        return Reloaded()


class Reloaded(Letters):
    def save(self):
        return b"reloaded"


class TextSave(Letters):
    def save(self):
        return "text"


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (OtherFit(), "OtherFit.fit must return an instance of OtherFit, not of Other"),
        (Other(), "Other.load does not restore the codec that Other.save wrote"),
        (TextSave(), "TextSave.save must return bytes, not str"),
    ],
)
def test_a_codec_that_cannot_be_stored(tmp_path, codec, message):
    data = SimpleNamespace(hashes={"train": "1"}, size=lambda split: 1, read=lambda *_, **__: iter(()))
    for _ in range(2):  # the second run finds nothing from the first
        with pytest.raises(SeqlabError, match=message):
            fit_codec(codec, ["source"], Text(), data, tmp_path)


class Shapes(MeanEncoder):
    """An encoder that applies `change` to its result."""

    change: str = ""

    def encode(self, inputs, *, train):
        encoded = MeanEncoder.encode(self, inputs, train=train)
        if self.change == "values":
            return encoded.values
        return dataclasses.replace(encoded, **{self.change: getattr(encoded, self.change)[:, None]})


@pytest.mark.parametrize(
    ("change", "message"),
    [("values", "must return an Encoded"), ("summary", "values .B P D., mask"), ("mask", "values .B P D., mask")],
)
def test_an_encoder_of_other_shapes(change, message):
    model = TINY.clone(encoder=Shapes(TINY.encoder.reader, dim=8, hidden=12, change=change))
    with pytest.raises(SeqlabError, match=f"Shapes.encode .*{message}"):
        initial_state(Experiment(model, Classification(), None), blank_batch(model))


def test_an_encoder_of_a_config():
    """Its class is not in a file of encoders."""
    cls = type("Local", (MeanEncoder,), {"__module__": "config"})
    experiment = dataclasses.replace(tiny_experiment(), model=TINY.clone(encoder=cls()), task=Classification())
    with pytest.raises(SeqlabError, match=r"model\.encoder: Local must be in a file of encoders/ or readers/"):
        check_experiment(experiment)


def test_an_encoder_that_does_not_say_whether_it_is_causal(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_folders", [])
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "undirected.py").write_text(
        "from flax import linen as nn\n"
        "from seqlab.readers.words import Words\n"
        "from seqlab.types import Encoder\n"
        "class Undirected(nn.Module, Encoder):\n"
        "    reader: nn.Module = Words()\n"
        "TINY = Undirected()\n"
    )
    parts.use_parts(tmp_path)
    model = TINY.clone(encoder=catalogue.module("encoders", "undirected").TINY)
    with pytest.raises(SeqlabError, match=r"Undirected must define the property causal, True or False"):
        check_experiment(dataclasses.replace(tiny_experiment(), model=model, task=Classification()))


class WrongLoss(Classification):
    def loss(self, model, params, batch, context):
        value = Classification.loss(self, model, params, batch, context)
        return {"array": value.sum, "vector": value._replace(sum=jnp.zeros(2))}[self.__dict__["returned"]]


@pytest.mark.parametrize(
    ("returned", "message"),
    [("array", r"must return a Loss\(sum, weight, sums\)"), ("vector", r"sum must be a scalar.* \(2,\)")],
)
def test_a_loss_of_another_type(returned, message):
    task = WrongLoss()
    task.__dict__["returned"] = returned
    with pytest.raises(SeqlabError, match=f"WrongLoss.loss.*{message}"):
        initial_state(Experiment(TINY, task, None), blank_batch(TINY))


@pytest.mark.parametrize("rows", [(3, 4), (5, 5), (0, 0), ()])
def test_a_batch_of_other_rows(rows):
    task = SimpleNamespace(collate=lambda *_: [np.zeros((count, 5)) for count in rows] or np.zeros(()))
    with pytest.raises(SeqlabError, match=r"must return arrays with the same number of rows, at most 4, not \["):
        make_batch(task, None, {}, BatchPlan(np.arange(3), (5,), 4))


@pytest.mark.parametrize("predictions", [[["a"]], [["a"], []]])
def test_predictions_that_are_missing(predictions):
    trained = SimpleNamespace(task=SimpleNamespace(predict=lambda *_: predictions))
    with pytest.raises(SeqlabError, match="predict returns predictions for 1 of 2 examples"):
        predict_rows(trained, {}, 2)


class Changed(Classification):
    """A task with other attributes."""

    changes: ClassVar = {}

    def __getattribute__(self, name):
        changes = object.__getattribute__(self, "changes")
        return changes[name] if name in changes else object.__getattribute__(self, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "Classifier"}, "model must be a protocol of seqlab.types"),
        ({"columns": ("source",)}, "columns must map"),
        ({"columns": {"source": Label}}, "'source' must have a codec such as Label"),
        ({"metrics": "accuracy"}, "metrics must be a tuple of names of metrics, not 'accuracy'"),
        ({"metrics": None}, "metrics must be a tuple"),
        ({"updates": "x"}, "updates must be an integer of at least 1"),
        ({"input_columns": "source"}, r"must be a tuple of names of columns \(source, label\), not 'source'"),
        ({"input_columns": ("nope",)}, "input_columns must be a tuple of names of columns"),
        ({"answer_column": "nope"}, "answer_column must be one of source, label, not 'nope'"),
    ],
)
def test_attributes_of_a_task(changes, message, monkeypatch):
    monkeypatch.setattr(Changed, "changes", changes)
    with pytest.raises(SeqlabError, match=f"Changed.*{message}"):
        check_task(Changed())


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (None, "must return a list"),
        ([Prediction("a")], "must return a list"),
        ([["a"]], r"must return Prediction\(text"),
        ([[Prediction(3)]], r"must return Prediction\(text"),
        ([[Prediction("a", float("nan"))]], "a score must be a finite number or None, not nan"),
        ([[Prediction("a", "high")]], "a score must be a finite number"),
        ([[Prediction("a", 1.0, {"text": "b"})]], "'text' in details is reserved"),
    ],
)
def test_predictions_of_other_types(predictions, message):
    trained = SimpleNamespace(task=SimpleNamespace(predict=lambda *_: predictions))
    with pytest.raises(SeqlabError, match=message):
        predict_rows(trained, {}, 1)


def test_numpy_values_in_predictions():
    prediction = Prediction("a", np.float32(0.5), {"times": np.arange(2), "mass": np.float32(1)})
    line = json.loads(format_prediction(0, prediction, False, True))
    assert line == {"line": 0, "text": "a", "score": 0.5, "times": [0, 1], "mass": 1.0}


@dataclasses.dataclass(frozen=True)
class Adapter(Parametrization):
    added: object = None
    applied: object = None

    def init(self, key, base, input_axes):
        return self.added

    def apply(self, base, added):
        return self.applied(base)


@pytest.mark.parametrize(
    ("added", "applied", "message"),
    [
        ({}, dict, "init adds no parameters"),
        ([1.0], dict, "init adds no parameters"),
        ({"a/b": np.ones(2, np.float32)}, dict, "the keys of the added parameters must be strings without '/'"),
        ({"a": np.ones(2, np.int32)}, dict, "a must be a floating-point array that is not empty"),
        ({"a": np.ones((3, 0), np.float32)}, dict, "a must be a floating-point array that is not empty"),
        (
            {"a": np.ones(2, np.float32)},
            lambda base: None,
            "apply must return a dict whose keys are the paths of the base",
        ),
        (
            {"a": np.ones(2, np.float32)},
            lambda base: {},
            "apply must return a dict whose keys are the paths of the base",
        ),
        (
            {"a": np.ones(2, np.float32)},
            lambda base: {path: leaf[None] for path, leaf in base.items()},
            r"apply returns params/.* as float32 \(1, ",
        ),
    ],
)
def test_a_parametrization_with_mistakes(added, applied, message):
    experiment = Experiment(TINY, Classification(), None, parametrization=Adapter(added, applied))
    with pytest.raises(SeqlabError, match=f"Adapter.*{message}"):
        init_experiment_parameters(experiment)


@pytest.mark.parametrize(
    ("counts", "message"),
    [(None, "must return LineCounts"), (count_means(np.ones((1, 1)), ["x"], "s"), r"of shape \(1, 2\) for 2 lines")],
)
def test_a_metric_with_mistakes(counts, message):
    with pytest.raises(SeqlabError, match=f"the metric mine .*{message}"):
        checked_counts("mine", counts, 2)


def test_an_unused_broken_metric_disturbs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_folders", [])
    (tmp_path / "metrics").mkdir()
    contents = {"listed": "METRICS = [1]", "leaves": "import sys; sys.exit(3)", "typed": "METRICS = {1: 2}"}
    for name, content in contents.items():
        (tmp_path / "metrics" / f"{name}.py").write_text(content + "\n")
    parts.use_parts(tmp_path)
    metrics, errors = load_metrics()
    assert "chrf" in metrics
    assert errors.keys() == contents.keys()
    assert "METRICS must be a dict" in errors["listed"]


class ReaderWith(Words):
    """`change` is made to what `read` returns."""

    change: str = ""

    def read(self, inputs, width, *, embed=None):
        vectors, mask = Words.read(self, inputs, width, embed=embed)
        return {
            "one": vectors,
            "int": (jnp.int32(vectors), mask),
            "flat": (vectors[:, 0], mask),
            "float mask": (vectors, mask * 1.0),
            "mask": (vectors, mask[:, :1]),
        }[self.change]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("one", "must return vectors"),
        ("int", "must return floating-point vectors .* not int32"),
        ("flat", r"must return floating-point vectors .* \(2, 8\)"),
        ("float mask", "must return a mask of bool .* not float32"),
        ("mask", r"must return a mask of bool .* \(2, 1\)"),
    ],
)
def test_a_reader_with_mistakes(change, message):
    with pytest.raises(SeqlabError, match=f"model.reader: ReaderWith.read {message}"):
        check_reader(ReaderWith(vocabulary=9, change=change), "model.reader")


class Scores(Reward):
    def __init__(self, values):
        self.values = values

    def score(self, sources, texts):
        return self.values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "a number for each of the 2 texts, not NoneType"),
        (np.ones(1), r"a number for each of the 2 texts, not float64 \(1,\)"),
        (np.ones((2, 1)), r"not float64 \(2, 1\)"),
        (np.array(["a", "b"]), "not <U1"),
        (np.array([1.0, np.nan]), "numbers that are not finite"),
    ],
)
def test_a_reward_with_mistakes(values, message):
    with pytest.raises(SeqlabError, match=f"Scores.score .*{message}"):
        rewards_of(Scores(values), ["", ""], ["a", "b"])
