"""Soft prompts (Lester et al. 2021): training changes their vectors alone, and decoding begins with them."""

import dataclasses
import json

import footprint
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.config import Optimizer, Schedule
from seqlab.layers.nesting import with_fields
from seqlab.runs import loading
from seqlab.system.errors import SeqlabError
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.training.prepare import plan_batches, prepare_experiment
from seqlab.training.train import train
from tests.proofs.runs import check_run, leaves_of, quiet, small
from tests.transfer.splits import splits_of, warm_day, write_splits

N = 3


def modeling(home, prompts=0, rows="lines", **changes):
    tiny = with_fields(catalogue.module("models", "transformer_lm").TINY, dropout=0.0)
    model = catalogue.without_sizes(tiny.clone(prompts=prompts))
    return small(model, LanguageModeling(rows, prompts=prompts), splits_of(home, target="text"), **changes)


def tuning(home, **changes):
    start = (("", str(home / "base"), ""),)
    settings = {"optimizer": Optimizer(trainable="prompts"), "schedule": Schedule("constant", 0.1, 0), **changes}
    return modeling(home, N, initialize=start, **settings)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a base run and a run of soft prompts."""
    home = tmp_path_factory.mktemp("prompts")
    write_splits(home, warm_day)
    train(modeling(home), home / "base", home / "data", say=quiet)
    train(tuning(home), home / "run", home / "data", say=quiet)
    return home


@pytest.mark.parametrize("rows", ["lines", "stream"])
def test_batches(home, rows):
    """A batch is that without prompts, after N positions with the ids from V upwards and weights 0."""
    both = []
    for prompts in (0, N):
        prepared = prepare_experiment(modeling(home, prompts, rows), home / "data", home / "none", say=quiet)
        plan = plan_batches(prepared.experiment, prepared.corpus, quiet)
        both.append([prepared.collate(batch_plan, 0) for batch_plan in plan.batches(0, 0)])
    size = prepared.codecs["target"].size
    for plain, prompted in zip(*both, strict=True):
        np.testing.assert_array_equal(prompted.prefix.ids[:, N:], plain.prefix.ids)
        np.testing.assert_array_equal(prompted.weights[:, N:], plain.weights)
        np.testing.assert_array_equal(prompted.targets[:, N:], plain.targets)
        assert not prompted.weights[:, :N].any()
        real = plain.prefix.mask.any(axis=1)
        np.testing.assert_array_equal(prompted.prefix.mask[:, :N], np.tile(real[:, None], N))
        np.testing.assert_array_equal(prompted.prefix.ids[real, :N], np.tile(size + np.arange(N), (real.sum(), 1)))


def test_only_the_prompts_are_trained(home):
    base, run = leaves_of(home / "base"), leaves_of(home / "run")
    assert run.keys() - base.keys() == {"params/words/prompts"}
    assert all(np.array_equal(base[path].view(np.uint32), run[path].view(np.uint32)) for path in base)


def test_it_learns_resumes_and_is_the_same_on_devices(home):
    check_run(tuning(home), home / "run", home / "data")


def test_decoding_begins_with_the_prompts(home):
    """The request contains the prompts, which are not part of the text."""
    run = loading.load(home / "run")
    task, size = run.experiment.task, run.codecs["target"].size
    (request,) = task.requests([[7, 8]], run.codecs, 5)
    assert list(request.prompt) == [size, size + 1, size + 2, run.codecs["target"].bos, 7, 8]
    assert request.begin == N + 1
    (text,) = run.translate(["a warm"], max_length=8)
    assert text.startswith("a warm")


def test_the_costs_of_a_run(home, monkeypatch, capsys):
    """The script prints one line of JSON with the scores and the costs."""
    monkeypatch.chdir(home)
    footprint.main(home / "run", "validation")
    printed = json.loads(capsys.readouterr().out)
    scores = {score["name"]: score["value"] for score in printed["scores"]}
    width = leaves_of(home / "run")["params/words/prompts"].shape[1]
    assert scores["trainable parameters"] == N * width
    assert scores["perplexity"] > 1
    assert scores["seconds per step"] > 0
    assert scores["checkpoint MiB"] > 0
    assert printed["data"]["sha256"]


def test_refused(home):
    with pytest.raises(SeqlabError, match="set task.rows to lines or stream"):
        LanguageModeling("packed", prompts=2)
    experiment = modeling(home, N)
    with pytest.raises(SeqlabError, match="the model has 2 soft prompts, but the task 3: set model.prompts and"):
        train(
            dataclasses.replace(experiment, model=experiment.model.clone(prompts=2)),
            home / "unequal",
            home / "data",
            say=quiet,
        )
