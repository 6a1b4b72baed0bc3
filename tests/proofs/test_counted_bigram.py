"""A bigram model estimated by counting: one checkpoint without an optimizer, decoded by the same search."""

import dataclasses
import json

import numpy as np
import pytest
from seqlab_parts.models.counted_bigram import TINY, CountedBigram

from seqlab.datasets.local_files import LocalFiles
from seqlab.laws.generators import future_is_unseen, past_matters, step_agrees_with_features
from seqlab.laws.models import longer_padding_changes_nothing, pads_are_inert, rows_are_independent
from seqlab.laws.search import greedy_is_a_beam_of_one, returned_scores_are_the_models
from seqlab.laws.subject import make_subject
from seqlab.runs import loading, manifest
from seqlab.system.errors import SeqlabError
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.training.train import train
from tests.command import call
from tests.proofs.conftest import PARTS
from tests.proofs.runs import leaves_of, quiet, small

TEXTS = {"train": ["a b", "a b", "a c", "b"], "validation": ["a b"], "test": ["b a"]}


def modeling(home, rows="lines", **changes):
    files = (str(home / f"{split}.jsonl") for split in TEXTS)
    return small(CountedBigram(), LanguageModeling(rows), LocalFiles(*files, target="text"), **changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("bigram")
    for split, texts in TEXTS.items():
        (home / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    train(modeling(home), home / "run", home / "data", say=quiet)
    return home


def test_the_probabilities_are_the_counted_ones(home):
    """In training, "a" is followed twice by " b" and once by " c"; each of the V continuations has an added count of
    1.
    """
    run = loading.load(home / "run")
    codec, table = run.codecs["target"], run.params["params"]["table"]
    np.testing.assert_allclose(np.exp(table).sum(axis=1), 1.0, rtol=1e-5)
    (ids,) = codec.encode(["a b"])
    bos, first = codec.bos, ids[0]
    starts_with_a = sum(text.startswith("a") for text in TEXTS["train"])
    assert np.exp(table[bos, first]) == pytest.approx((starts_with_a + 1) / (len(TEXTS["train"]) + codec.size))


@pytest.mark.parametrize("rows", ["packed", "stream"])
def test_other_rows_count_other_contexts(home, tmp_path, rows):
    """Each batch is counted once. The rows of a stream do not start with BOS, so their counts differ."""
    train(modeling(home, rows), tmp_path / "run", home / "data", say=quiet)
    table = leaves_of(tmp_path / "run")["params/table"]
    equal = np.array_equal(table, leaves_of(home / "run")["params/table"])
    assert equal == (rows == "packed")


def test_one_checkpoint_and_no_optimizer(home, capsys):
    assert manifest.checkpoint_steps(home / "run") == [1]
    lines = []
    train(modeling(home), home / "run", home / "data", say=lines.append)
    assert lines[-1] == f"{home / 'run'}: the parameters are already counted"
    assert call(home, "runs", ".") == 0
    assert "finished" in capsys.readouterr().out


def test_it_decodes_and_is_evaluated(home, capsys):
    (home / "in.txt").write_text("a\n")
    assert call(home, "decode", "run", "--input", "in.txt", "--beam", "3", "--parts", str(PARTS)) == 0
    assert capsys.readouterr().out.startswith("a")
    assert call(home, "evaluate", "run", "--data-dir", "data", "--parts", str(PARTS)) == 0
    assert "perplexity" in capsys.readouterr().out


def test_a_zero_probability_is_an_error(home, tmp_path):
    model = CountedBigram(added=0.0)
    with pytest.raises(SeqlabError, match="a probability from counts is zero"), np.errstate(all="ignore"):
        train(dataclasses.replace(modeling(home), model=model), tmp_path / "run", home / "data", say=quiet)


@pytest.mark.parametrize(
    "law",
    [
        pads_are_inert,
        longer_padding_changes_nothing,
        rows_are_independent,
        future_is_unseen,
        past_matters,
        step_agrees_with_features,
        returned_scores_are_the_models,
        greedy_is_a_beam_of_one,
    ],
)
def test_it_obeys_the_laws_of_generators(law):
    s = make_subject(TINY)
    table = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    law(s._replace(params={"params": {"table": table}}))
