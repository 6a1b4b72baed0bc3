"""Span corruption (Raffel et al. 2020) and denoising (Lample et al. 2018), against their definitions."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqlab.codecs.sentencepiece import train_sentencepiece
from seqlab.config import Batching, Text
from seqlab.data.corpus import Corpus
from seqlab.data.plans import BatchPlan
from seqlab.models.transformer import Transformer
from seqlab.system.errors import SeqlabError
from seqlab.tasks.denoising import Denoising
from seqlab.tasks.span_corruption import SENTINELS, SpanCorruption, partition
from tests.command import call, save_untrained
from tests.proofs.runs import small
from tests.transfer.splits import splits_of, warm_day, write_splits
from tests.transfer.subjects import OLD, codec_of_words, corpus_of_words

MASK, SENTINEL = 9_999, 10_000  # ids that no text contains


def filled(source, target):
    """Returns the text, given a source with sentinels and the spans after the sentinels of a target."""
    if not len(target):
        return source
    at = np.flatnonzero(target >= SENTINEL)
    spans = {int(target[i]): target[i + 1 : j] for i, j in zip(at, [*at[1:], len(target)], strict=True)}
    return np.concatenate([spans[int(token)] if token >= SENTINEL else [token] for token in source] or [source])


@given(st.integers(0, 200), st.integers(0, 5), st.sampled_from([(0.15, 3.0), (0.5, 3.0), (0.3, 1.0)]))
def test_spans(length, seed, fields):
    """Filling in the spans gives the text. The numbers of spans and of missing tokens are those of the paper."""
    task, text = SpanCorruption(*fields, max_tokens=200), np.arange(length) + 1
    source, target = task.corrupt(text, list(range(SENTINEL, SENTINEL + 64)), np.random.default_rng(seed))
    np.testing.assert_array_equal(filled(source, target), text)
    spans = int((source >= SENTINEL).sum())
    missing, expected = task.counts(length)
    assert (spans, len(target) - spans) == (expected, missing)
    if length > 1:
        share, span = fields
        assert missing == min(max(round(share * length), 1), length - 1)
        assert 1 <= spans <= max(round(missing / span), 1)
    ordered = target[target >= SENTINEL]
    np.testing.assert_array_equal(ordered, SENTINEL + np.arange(spans))
    np.testing.assert_array_equal(source[source >= SENTINEL], ordered)


def test_partitions_are_equally_likely():
    random = np.random.default_rng(0)
    drawn = [tuple(partition(5, 3, random)) for _ in range(6000)]
    counts = {sizes: drawn.count(sizes) for sizes in set(drawn)}
    assert len(counts) == 6  # of 5 into 3 nonempty parts
    assert all(sum(sizes) == 5 and min(sizes) >= 1 for sizes in counts)
    assert max(counts.values()) - min(counts.values()) < 200  # each is expected 1,000 times


def test_too_many_spans():
    with pytest.raises(SeqlabError, match=f"a text of 400 tokens has more than {len(SENTINELS)} spans"):
        SpanCorruption(share=0.5, span=1.0, max_tokens=400)


def test_texts_and_spans_need_one_tokenizer():
    corpus, codecs = corpus_of_words(), {"source": codec_of_words(), "target": OLD}
    with pytest.raises(SeqlabError, match="need one tokenizer: set text.joint to True"):
        SpanCorruption().collate(corpus, BatchPlan(np.array([0]), (20, 20), 1), codecs)


def test_scores_of_spans(tmp_path, capsys):
    """There is a perplexity per token of the spans, and none by word or by character, which count the whole text."""
    write_splits(tmp_path, warm_day)
    model = Transformer(encoder_layers=1, decoder_layers=1, dim=8, heads=2, hidden=12)
    data = splits_of(tmp_path, source="text", target="text")
    task = SpanCorruption()
    codec = train_sentencepiece(["a warm day 1"], Text("char", 400), task.columns["source"].reserved)
    save_untrained(small(model, task, data), {"source": codec, "target": codec}, tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text("{}")
    assert call(tmp_path, "evaluate", "run", "--split", "test", "--json") == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert {score["name"] for score in scores} == {"perplexity", "accuracy"}
    assert call(tmp_path, "decode", "run", stdin="a warm day") == 2
    expected = "a run of SpanCorruption does not generate text: fine-tune it on another task first"
    assert expected in capsys.readouterr().err


def words_of(ids):
    """Returns the words of a sequence of ids as tuples."""
    starts = [*np.flatnonzero(codec_of_words().begins_word[ids]), len(ids)] if len(ids) else [0]
    return [tuple(ids[i:j]) for i, j in itertools.pairwise(starts)]


def noisy(task, seed=0):
    """Yields texts, and the same texts with noise."""
    random = np.random.default_rng(seed)
    for i in range(200):
        text = corpus_of_words().row("source", i)
        text = text[text != codec_of_words().newline]
        yield text, task.corrupt(text, codec_of_words(), MASK, random)


def test_without_noise():
    for text, result in noisy(Denoising(0.0, 0.0, 0)):
        np.testing.assert_array_equal(result, text)


def test_dropped_words():
    kept = total = 0
    for text, result in noisy(Denoising(0.3, 0.0, 0)):
        words, left = words_of(text), words_of(result)
        rest = iter(words)
        assert all(word in rest for word in left)  # a subsequence
        assert left
        kept, total = kept + len(left), total + len(words)
    assert abs(kept / total - 0.7) < 0.03


def test_masked_words():
    """A masked word becomes one [MASK]; the other words remain in place."""
    masked = total = 0
    for text, result in noisy(Denoising(0.0, 0.25, 0)):
        expected = words_of(text)
        position = 0
        for word in expected:
            is_masked = result[position] == MASK
            masked, total = masked + is_masked, total + 1
            assert is_masked or tuple(result[position : position + len(word)]) == word
            position += 1 if is_masked else len(word)
        assert position == len(result)
    assert abs(masked / total - 0.25) < 0.03


@pytest.mark.parametrize("distance", [1, 3])
def test_shuffled_words_move_a_little(distance):
    moved = 0
    for text, result in noisy(Denoising(0.0, 0.0, distance)):
        words, shuffled = words_of(text), words_of(result)
        assert sorted(words) == sorted(shuffled)
        if len({*words}) == len(words):
            places = [abs(words.index(word) - i) for i, word in enumerate(shuffled)]
            assert max(places) <= distance
            moved += sum(places)
    assert moved > 10


def test_the_target_is_the_text():
    task, codec = Denoising(), codec_of_words()
    corpus = corpus_of_words()
    arrays = (corpus.values["source"], corpus.offsets["source"])
    both = Corpus(*(dict.fromkeys(("source", "target"), array) for array in arrays))
    batch_plan = task.plan(both, Batching(tokens=2000, buckets=3)).batches(0, 0)[0]
    batch = task.collate(both, batch_plan, {"source": codec, "target": codec}, (0, 0))
    for i, index in enumerate(batch_plan.indices):
        text = both.row("target", index)[: task.max_tokens]
        np.testing.assert_array_equal(batch.targets[i][batch.weights[i] > 0], [*text, codec.eos])
        assert batch.inputs.ids[i][batch.inputs.mask[i]][-1] == codec.eos
