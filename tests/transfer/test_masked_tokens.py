"""Masked-token prediction (Devlin et al. 2019), and a classifier that is initialized from its encoder."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqlab.config import Batching, Schedule
from seqlab.data.corpus import encode_split
from seqlab.layers.nesting import with_fields
from seqlab.models.classifier_head import ClassifierHead
from seqlab.models.masked_lm import MaskedLM
from seqlab.runs import loading
from seqlab.runs.parameters import init_model_parameters
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.tasks.masked_tokens import TEXT, MaskedTokens
from seqlab.training.prepare import prepare_experiment
from seqlab.training.train import train
from seqlab.training.validation import plan_all
from seqlab.types import Context
from tests.command import call
from tests.proofs.runs import check_run, leaves_of, quiet, small
from tests.transfer.splits import day_of_kind, splits_of, write_splits
from tests.transfer.subjects import ENCODER, codec_of_words, corpus_of_words


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with a pre-trained run."""
    home = tmp_path_factory.mktemp("masked")
    write_splits(home, day_of_kind)
    train(pretraining(home), home / "run", home / "data", say=quiet)
    return home


def pretraining(home, **changes):
    return small(MaskedLM(ENCODER), MaskedTokens(), splits_of(home, source="text"), **changes)


def classification(home, **changes):
    parts = {"initialize": (("encoder", str(home / "run"), "encoder"),)}
    data = splits_of(home, source="text", label="kind")
    return small(ClassifierHead(ENCODER, dropout=0.0), Classification(), data, **parts | changes)


def batches(task, draw=(0, 0)):
    """Yields the batches of an epoch with the indices of their rows."""
    corpus, codecs = corpus_of_words(), {"source": codec_of_words()}
    for batch_plan in task.plan(corpus, Batching(tokens=2000, buckets=3)).batches(0, 0):
        yield task.collate(corpus, batch_plan, codecs, draw), batch_plan.indices


def restored(batch, i):
    """Returns a row with its masked tokens restored, and the places of these tokens."""
    ids, real = batch.inputs.ids[i].copy(), batch.weights[i] > 0
    places = batch.places[i][real]
    ids[places] = batch.targets[i][real]
    return ids[batch.inputs.mask[i]], places


@pytest.mark.parametrize("task", [MaskedTokens(), MaskedTokens(share=0.4), MaskedTokens(whole_words=True, share=0.3)])
def test_masks(task):
    """The targets are the masked tokens. The share of masked tokens is exact unless whole words are masked. Of the
    masked tokens, 80 % are [MASK], 10 % are random and 10 % unchanged.
    """
    codec, kinds, masked_count, count = codec_of_words(), [], 0, 0
    mask_id = TEXT.reserved_id("[MASK]", codec)
    for batch, indices in batches(task):
        for i, index in enumerate(indices):
            text, (ids, places) = corpus_of_words().row("source", index)[: task.max_tokens], restored(batch, i)
            np.testing.assert_array_equal(ids, text)
            changed = batch.inputs.ids[i][: len(text)] != text
            assert set(np.flatnonzero(changed)) <= set(places)
            inputs = batch.inputs.ids[i][places]
            kinds += np.where(inputs == mask_id, "mask", np.where(inputs == text[places], "kept", "random")).tolist()
            masked_count, count = masked_count + len(places), count + len(text)
            if task.whole_words:
                words = np.cumsum(codec.begins_word[text])
                assert set(places) == set(np.flatnonzero(np.isin(words, words[places])))
            else:
                assert len(places) == max(round(task.share * len(text)), 1)
    assert abs(masked_count / count - task.share) < 0.03
    shares = {kind: kinds.count(kind) / len(kinds) for kind in ("mask", "kept", "random")}
    assert abs(shares["mask"] - 0.8) < 4 * (0.16 / len(kinds)) ** 0.5
    assert abs(shares["random"] - 0.1) < 4 * (0.09 / len(kinds)) ** 0.5 + 1 / 300  # a random token may be the same


def test_masks_depend_on_the_epoch():
    first, again, second = (list(batches(MaskedTokens(), draw)) for draw in ((0, 0), (0, 0), (0, 1)))
    equal_draws, different_draws = (
        [np.array_equal(a.places, b.places) for (a, _), (b, _) in zip(first, rest, strict=True)]
        for rest in (again, second)
    )
    assert all(equal_draws)
    assert not any(different_draws)


def test_pairs():
    """Half of the second texts come from another text. EOS ends both texts and is never masked."""
    codec, answers = codec_of_words(), []
    for batch, indices in batches(MaskedTokens(next_sentence=True)):
        for i, index in enumerate(indices):
            ids, places = restored(batch, i)
            ends = np.flatnonzero(ids == codec.eos)
            assert len(ends) == 2
            assert not set(ends) & set(places)
            second = np.arange(len(ids)) > ends[0]
            np.testing.assert_array_equal(batch.inputs.types[i][batch.inputs.mask[i]], second)
            text = corpus_of_words().row("source", index)[: MaskedTokens().max_tokens]
            first_part, second_part = ids[: ends[0]], ids[ends[0] + 1 : ends[1]]
            np.testing.assert_array_equal(first_part, text[: len(first_part)])
            rest = text[len(first_part) + (text[len(first_part)] == codec.newline) :]
            follows = np.array_equal(second_part, rest)
            assert follows == batch.follows[i]
            answers.append(follows)
    assert 0.4 < np.mean(answers) < 0.6


def test_the_loss_is_that_of_numpy():
    """The loss is the cross-entropy of the masked tokens and that of the pairs, weighted by their masked tokens."""
    task = MaskedTokens(next_sentence=True)
    model = MaskedLM(with_fields(ENCODER, vocabulary=codec_of_words().size))
    params, batch = init_model_parameters(model, 0), jax.tree.map(jnp.asarray, next(batches(task))[0])
    apply = jax.jit(functools.partial(model.apply, train=False), static_argnames="method")
    loss = jax.jit(functools.partial(task.loss, model))(params, batch, Context())
    logits, follows = apply(params, batch.inputs, batch.places, method="predict_tokens")
    logits, follows = np.asarray(logits, np.float64), np.asarray(follows, np.float64)
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    nll = -np.take_along_axis(log_probs, batch.targets[..., None], axis=-1)[..., 0]
    pair_nll = np.logaddexp(0, np.where(batch.follows == 1, -follows, follows))
    expected = (nll * batch.weights).sum() + (pair_nll * batch.weights.sum(1)).sum()
    np.testing.assert_allclose(loss.sum, expected, rtol=1e-5)
    assert loss.weight == batch.weights.sum()
    tags = np.asarray(apply(params, batch.inputs, method="tag")[0])
    np.testing.assert_allclose(
        np.take_along_axis(tags, batch.places[..., None], axis=1), logits, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 1.0}, "task.share must be at least 0 and below 1"),
        ({"max_tokens": 1}, "task.max_tokens must be at"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(SeqlabError, match=message):
        MaskedTokens(**fields)


def test_the_mask_is_not_text(home):
    codec = loading.load(home / "run").codecs["source"]
    ids = codec.encode(["[MASK]"])[0]
    assert TEXT.reserved_id("[MASK]", codec) not in ids
    assert codec.decode(ids) == "[MASK]"
    with pytest.raises(SeqlabError, match="no special token .X."):
        TEXT.reserved_id("[X]", codec)


def test_it_learns_resumes_and_is_the_same_on_devices(home):
    check_run(pretraining(home), home / "run", home / "data")


def test_the_signature_names_the_unit(home, capsys):
    """Perplexity is a mean over masked tokens, not over examples."""
    assert call(home, "evaluate", "run", "--data-dir", "data", "--json") == 0
    scores = {score["name"]: score for score in json.loads(capsys.readouterr().out)["scores"]}
    experiment, data, codecs, _ = prepare_experiment(pretraining(home), home / "data", home / "run", say=quiet)
    corpus = encode_split(data, "test", codecs, home / "data")
    plan = plan_all(experiment, corpus)
    batches = (experiment.task.collate(corpus, batch_plan, codecs) for batch_plan in plan.batches(0, None))
    tokens = sum(int(batch.weights.sum()) for batch in batches)
    assert scores["perplexity"]["signature"] == f"unit:token|tokens:{tokens}|left-out:0"
    assert tokens != len(corpus)


def test_a_classifier_starts_from_the_encoder(home, capsys):
    """A step with learning rate zero leaves the pre-trained encoder unchanged. Then the classifier trains and
    predicts.
    """
    tokenizer, lines = home / "run" / "codecs" / "source.sentencepiece", []
    still = classification(home, steps=1, schedule=Schedule(name="constant", peak=0.0, warmup=0))
    train(still, home / "still", home / "data", tokenizer=tokenizer, say=lines.append)
    assert any(line.startswith("encoder: ") for line in lines)
    pretrained, taken = leaves_of(home / "run"), leaves_of(home / "still")
    encoder = [path for path in taken if path.startswith("params/encoder/")]
    assert encoder == [path for path in pretrained if path.startswith("params/encoder/")]
    assert all(np.array_equal(taken[path], pretrained[path]) for path in encoder)
    train(classification(home), home / "classifier", home / "data", tokenizer=tokenizer, say=quiet)
    (home / "lines.txt").write_text("a warm day 3\na cold day 4\n")
    arguments = ["predict", "classifier", "--input", "lines.txt", "--json"]
    assert call(home, *arguments) == 0
    predictions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [prediction["line"] for prediction in predictions] == [0, 1]
    assert all(p["text"] in "ab" and 0.5 <= p["score"] <= 1 for p in predictions)
