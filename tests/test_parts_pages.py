"""The examples of docs/parts, in a separate folder, obey the laws, and the usual commands train, resume, decode,
predict and evaluate with them.
"""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from seqlab import catalogue
from seqlab.data.corpus import Corpus
from seqlab.data.plans import BatchPlan
from seqlab.laws.registry import model_laws
from seqlab.laws.subject import make_subject, models_with
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.layers.nesting import with_fields
from seqlab.system import parts
from tests.command import call
from tests.proofs.runs import check_devices

PAGES = sorted((Path(__file__).parents[1] / "docs" / "parts").glob("*.md"))
CONFIG = """
from seqlab.config import Batching, Experiment, Schedule, Text, Validation
from seqlab.models.classifier_head import ClassifierHead
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab_parts.datasets.moods import Moods
from seqlab_parts.encoders.windows import Windows
from seqlab_parts.models.small_gru import SmallGRU
from seqlab_parts.parametrizations.scaled import Scaled
from seqlab_parts.readers.marked_words import MarkedWords
from seqlab_parts.rewards.brevity import Brevity
from seqlab_parts.tasks.polarity import Polarity
from seqlab_parts.tasks.rewarded_language_modeling import RewardedLanguageModeling

settings = dict(
    steps=12,
    text=Text("char", 300),
    batching=Batching(tokens=800, buckets=2, max_length=60),
    schedule=Schedule(name="constant", peak=1e-2, warmup=0),
    validation=Validation(every=6, examples=10),
    log_every=1,
    hash_every=1,
)
experiment = Experiment(PARTS, Moods(), parametrization=PARAMETRIZATION, **settings)
"""
EXPERIMENTS = {
    "polarity": "ClassifierHead(Windows(MarkedWords(), dim=16)), Polarity()",
    "language": "SmallGRU(dim=16), LanguageModeling()",
    "rewarded": "SmallGRU(dim=16), RewardedLanguageModeling(reward=Brevity(cost=0.01))",
    "scaled": "SmallGRU(dim=16), LanguageModeling()",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the parts of all pages and a config for each experiment."""
    home = tmp_path_factory.mktemp("parts")
    for page in PAGES:
        for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            first, _, source = code.partition("\n")
            path = home / "parts" / first.removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
    for name, chosen in EXPERIMENTS.items():
        added = "Scaled()" if name == "scaled" else "None"
        (home / f"{name}.py").write_text(CONFIG.replace("PARTS", chosen).replace("PARAMETRIZATION", added))
    before, kept = (
        list(parts._folders),
        {name: m for name, m in sys.modules.items() if name.startswith("seqlab_parts")},
    )
    parts.use_parts(home / "parts")
    yield home
    parts._folders[:] = before
    for name in [name for name in sys.modules if name.startswith("seqlab_parts") and name not in kept]:
        del sys.modules[name]
    if "seqlab_parts" in kept:
        kept["seqlab_parts"].__path__ = [path for path in kept["seqlab_parts"].__path__ if str(home) not in path]


def test_every_kind_has_a_page(home):
    kinds = {page.stem for page in PAGES}
    assert kinds == {kind.rstrip("s") for kind in parts.PART_FOLDERS}
    assert {path.parent.name for path in (home / "parts").glob("*/*.py")} == set(parts.PART_FOLDERS)


def test_a_reward_is_a_field_of_a_task(home):
    """Tests the values of a reward, its form in experiment.json, and its effect on training."""
    reward = catalogue.part_class("rewards", "brevity")(cost=0.5)
    assert reward.score(["a", "b"], ["", "xyz"]).tolist() == [0.0, -1.5]
    values = catalogue.part_to_json(reward)
    assert values == {"part": "rewards/brevity", "cost": 0.5}
    assert catalogue.part_from_json("tasks", values, "task.reward") == reward
    codecs, texts = {"target": tiny_tokenizer()}, ["a", "a b c"]
    rows = codecs["target"].encode(texts)
    corpus = Corpus({"target": np.concatenate(rows)}, {"target": np.cumsum([0, *map(len, rows)])})
    task = catalogue.part_class("tasks", "rewarded_language_modeling")(reward=reward)
    plan = BatchPlan(np.arange(2), (8,), 3)
    trained, judged = (task.collate(corpus, plan, codecs, draw) for draw in ((0, 0), None))
    np.testing.assert_allclose(trained.weights, judged.weights * np.exp([[-0.5], [-2.5], [0.0]]))


@pytest.mark.parametrize("kind", ["models", "encoders", "readers"])
def test_the_examples_obey_the_laws(home, kind):
    (name,) = (path.stem for path in (home / "parts" / kind).glob("*.py"))
    for model in models_with(catalogue.module(kind, name).TINY):
        s = make_subject(model)
        for law in model_laws(model):
            law(s)


def seqlab(home, *arguments):
    return call(home, *arguments, "--parts", "parts")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_they_train_resume_and_are_evaluated(home, name, capsys):
    train = ["train", f"{name}.py", "--data-dir", "data"]
    assert seqlab(home, *train, "--out", f"{name}-whole") == 0
    assert seqlab(home, *train, "--out", f"{name}-run") == 0
    for step in (6, 12):  # as if killed before the second checkpoint
        assert (home / f"{name}-run" / "checkpoints" / str(step)).is_dir()
    shutil.rmtree(home / f"{name}-run" / "checkpoints" / "12")
    assert seqlab(home, *train, "--out", f"{name}-run") == 0
    hashes = [(home / run / "hashes.jsonl").read_text() for run in (f"{name}-run", f"{name}-whole")]
    assert hashes[0] == hashes[1]
    capsys.readouterr()
    assert seqlab(home, "evaluate", f"{name}-run", "--data-dir", "data", "--json") == 0
    scores = {score["name"]: score["value"] for score in json.loads(capsys.readouterr().out)["scores"]}
    assert ("same initial" in scores) == (name == "polarity")
    assert all(np.isfinite(value) for value in scores.values())


def test_they_decode_and_predict(home, capsys):
    (home / "in.txt").write_text("sun fun\nrain no gray\n")
    assert seqlab(home, "decode", "language-run", "--input", "in.txt", "--beam", "2") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert seqlab(home, "predict", "polarity-run", "--input", "in.txt", "--nbest", "2") == 0
    lines = [line.split(" ||| ") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["0", "0", "1", "1"]
    assert {line[1] for line in lines} == {"good", "bad"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_they_are_the_same_on_devices(home, name):
    experiment = dataclasses.replace(catalogue.load_config(home / f"{name}.py"))
    plain = catalogue.load_experiment(home / f"{name}-run" / "experiment.json")
    model = with_fields(plain.model, dropout=0.0)
    check_devices(dataclasses.replace(experiment, model=model), home / f"{name}-run", home / "data")


def test_a_run_without_its_parts(home, monkeypatch, capsys):
    """The error names the missing part."""
    monkeypatch.setattr(parts, "_folders", [])
    assert call(home, "predict", "polarity-run", "--input", "in.txt") == 2
    assert "unknown reader 'marked_words'" in capsys.readouterr().err
