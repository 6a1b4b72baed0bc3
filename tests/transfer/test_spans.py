"""Extractive question answering: the alignment of answers, the loss, the best span, the metric, and a run."""

import collections
import dataclasses
import functools
import json
import re
import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from seqlab import catalogue
from seqlab.codecs.sentencepiece import train_sentencepiece
from seqlab.config import Text
from seqlab.data.corpus import Corpus
from seqlab.data.plans import BatchPlan
from seqlab.evaluation.diagnosis.activations import activations
from seqlab.evaluation.diagnosis.gradients import last_targets
from seqlab.laws.tasks import tiny_corpus, tiny_plan
from seqlab.metrics.registry import score
from seqlab.metrics.word_f1 import f1_of
from seqlab.models import span_head
from seqlab.models.span_head import SpanHead
from seqlab.runs.parameters import init_model_parameters
from seqlab.system.errors import SeqlabError
from seqlab.tasks.span_extraction import SpanExtraction, best_span, span_of
from seqlab.training.train import train
from seqlab.types import Context
from tests.command import call
from tests.proofs.runs import check_run, quiet, small
from tests.transfer.splits import splits_of, write_rows, write_splits
from tests.transfer.subjects import ENCODER

TEXTS = ["Who was born in (Zürich)? In 1912, Zoë was.", "the cat sat on the mat, Zürich 12 東京"]
TOKENIZERS = {kind: train_sentencepiece(TEXTS * 9, Text(kind, 330)) for kind in ("char", "bpe")}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    ("context", "answer", "expected"),
    [
        ("the cat sat on the mat", "the mat", (15, 22)),
        ("the mat, and the mat", "mat", (4, 7)),
        ("born in (Zürich)?", "Zürich", (9, 15)),
        ("In 1912, 12 cats", "12", (9, 11)),  # a whole word precedes the part of a number
        ("In 1912, cats", "91", (4, 6)),
        ("在東京市", "東京", (1, 3)),
        ("one\ntwo 12", "two", (4, 7)),
        ("born in  Zürich", " born in Zürich", (0, 15)),
        ("the cat", "dog", None),
        ("the cat", "", None),
    ],
)
def test_answers_are_aligned_to_tokens(kind, context, answer, expected):
    """The tokens of the span are those that have a character of the answer."""
    codec = TOKENIZERS[kind]
    ids, answer_ids = (np.array(row, np.int32) for row in codec.encode([context, answer]))
    span = span_of(answer_ids, ids, codec, codec)
    if expected is None or (kind == "char" and "  " in context):  # a tokenizer of characters keeps repeated blanks
        assert span is None
        return
    assert span is not None
    first, last = span
    text = context[expected[0] : expected[1]]
    assert " ".join(text.split()) in codec.decode(ids[first : last + 1].tolist())
    assert " ".join(text.split()) not in codec.decode(ids[first + 1 : last + 1].tolist())
    assert " ".join(text.split()) not in codec.decode(ids[first:last].tolist())
    before = codec.decode(ids[:first].tolist())
    assert context[: expected[0]].rstrip().startswith(before)
    if kind == "char":
        assert len(before) == len(context[: expected[0]].rstrip())


def example_of(context, answer, question="who?", kind="bpe"):
    """Returns the corpus of an example, its batch plan with room for three pads and a second row, and its codecs."""
    codec, columns = TOKENIZERS[kind], ("question", "source", "answer")
    rows = [np.array(row, np.int32) for row in codec.encode([question, context, answer])]
    offsets = {name: np.array([0, len(row)]) for name, row in zip(columns, rows, strict=True)}
    corpus = Corpus(dict(zip(columns, rows, strict=True)), offsets)
    length = len(rows[0]) + len(rows[1]) + 2
    return corpus, BatchPlan(np.array([0]), (length + 3,), 2), dict.fromkeys(columns, codec)


def test_the_batch():
    corpus, _, codecs = example = example_of("the cat sat on the mat", "cat sat")
    batch = SpanExtraction().collate(*example)
    begin, end = batch.targets[0].tolist()
    assert codecs["source"].decode(batch.inputs.ids[0, begin : end + 1].tolist()) == "cat sat"
    np.testing.assert_array_equal(batch.weights, [[0.5, 0.5], [0, 0]])
    question, context = (len(corpus.row(name, 0)) for name in ("question", "source"))
    expected = [0] * (question + 1) + [1] * (context + 1) + [0] * 3
    np.testing.assert_array_equal(batch.inputs.types[0], expected)
    cut = SpanExtraction(max_question=1, max_tokens=end - question - 1).collate(*example)
    assert not cut.weights.any()
    whole = SpanExtraction(max_question=1, max_tokens=end - question).collate(*example)
    np.testing.assert_array_equal(whole.targets[0], batch.targets[0] - question + 1)


@pytest.mark.parametrize("answer", ["dog", ""])
def test_an_answer_that_does_not_occur_is_refused(answer):
    with pytest.raises(SeqlabError, match=f"example 1: the answer '{answer}' does not occur in the context: correct"):
        SpanExtraction().collate(*example_of("the cat", answer))


def test_malformed_examples_are_found_before_training(home, tmp_path):
    rows = [json.loads(line) for line in (home / "train.jsonl").read_text().splitlines()]
    rows[3]["a"] = rows[7]["a"] = "hamster"
    write_rows(tmp_path / "train.jsonl", rows)
    experiment = answering(home)
    data = dataclasses.replace(experiment.data, train=str(tmp_path / "train.jsonl"))
    message = "split train: example 4: the answer 'hamster' does not occur .*; 2 examples of this split are malformed"
    with pytest.raises(SeqlabError, match=message):
        train(dataclasses.replace(experiment, data=data), tmp_path / "run", home / "data", say=quiet)


@pytest.mark.parametrize("kind", [*TOKENIZERS])
def test_malformed_examples_are_those_without_a_span(kind):
    task = SpanExtraction()
    for context, answer in (("the cat", "cat"), ("the cat", "dog"), ("the cat", ""), ("Zoë \u2603", "\u2603")):
        corpus, _, codecs = example_of(context, answer, kind=kind)
        span = span_of(corpus.row("answer", 0), corpus.row("source", 0), codecs["answer"], codecs["source"])
        assert len([*task.malformed_examples(corpus, codecs)]) == (span is None)


def test_one_tokenizer_for_questions_and_contexts():
    corpus, batch_plan, codecs = example_of("the cat", "cat")
    with pytest.raises(SeqlabError, match="'question' and 'source' need one tokenizer: set text.joint to True"):
        SpanExtraction().collate(corpus, batch_plan, {**codecs, "question": TOKENIZERS["char"]})


def test_the_loss_is_that_of_numpy():
    """The softmax is over the positions of the context, without the EOS that ends it."""
    batch = SpanExtraction().collate(*example_of("cat 12 mat", "12", question="a", kind="char"))
    logits = np.random.default_rng(0).normal(size=(*batch.inputs.ids.shape, 2)).astype(np.float32)

    class Logits(nn.Module):
        @nn.compact
        def outputs(self, inputs, prefix=None, *, train):
            return self.param("logits", nn.initializers.zeros, logits.shape)

    params = {"params": {"logits": jnp.asarray(logits)}}
    batch = jax.tree.map(jnp.asarray, batch)
    loss = jax.jit(functools.partial(SpanExtraction().loss, Logits()))
    total, weight, sums, _ = loss(params, batch, Context())
    context = logits[0, 2 : 2 + len("cat 12 mat")]
    log_probs = context - np.log(np.exp(context).sum(0))
    expected = -(log_probs[4, 0] + log_probs[5, 1]) / 2
    np.testing.assert_allclose([total, weight, sums["nll"], sums["cut off"]], [expected, 1, expected, 0], rtol=1e-5)
    cut = batch.replace(weights=0 * batch.weights)
    assert loss(params, cut, Context()).sums["cut off"] == 1


@pytest.mark.parametrize(("size", "longest"), [(1, 1), (5, 2), (7, 9)])
def test_the_best_span_is_that_of_a_loop(size, longest):
    logits = np.random.default_rng(size).normal(size=(size, 2)).astype(np.float32)
    log_probs = logits - np.log(np.exp(logits).sum(0))
    spans = {
        (begin, last + 1): log_probs[begin, 0] + log_probs[last, 1]
        for begin in range(size)
        for last in range(begin, min(begin + longest, size))
    }
    begin, end, value = best_span(logits, longest)
    assert (begin, end) == max(spans, key=lambda span: spans[span])
    assert value == pytest.approx(spans[begin, end], abs=1e-5)
    assert best_span(logits[:0], longest) == (0, 0, 0.0)


def test_diagnosis():
    """The two targets of a row are not those of its first positions."""
    task, tiny = SpanExtraction(), span_head.TINY
    corpus, codecs, _ = tiny_corpus(task)
    experiment = small(catalogue.without_sizes(tiny), task, None)
    model = catalogue.resolve(experiment, codecs).model
    batch = task.collate(corpus, tiny_plan(task, corpus).batches(0, None)[0], codecs)
    result = activations(functools.partial(task.loss, model), init_model_parameters(model, 0), batch)
    assert "output" in result
    last, changed = last_targets(batch)
    np.testing.assert_array_equal(last, batch.inputs.mask.sum(1) - 1)
    assert changed is batch


def official_f1(prediction, truth):
    """The evaluation script of SQuAD 2.0, shortened."""

    def normalize(text):
        text = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())

    gold, predicted = normalize(truth).split(), normalize(prediction).split()
    common = sum((collections.Counter(gold) & collections.Counter(predicted)).values())
    if not gold or not predicted:
        return int(gold == predicted)
    if not common:
        return 0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def test_word_f1():
    words = ["The", "a", "cat", "cat.", "U.S.", "us", "theatre", "-", "Zoë", "12,000"]
    random = np.random.default_rng(0)
    pairs = [[" ".join(random.choice(words, random.integers(0, 5))) for _ in range(3)] for _ in range(60)]
    for line, *references in pairs:
        assert f1_of(line, references[0]) == pytest.approx(official_f1(line, references[0]))
    lines, first, second = map(list, zip(*pairs, strict=True))
    (result,) = score("word_f1", lines, [first, second])
    best = [max(official_f1(line, reference) for reference in references) for line, *references in pairs]
    assert result.value == pytest.approx(100 * np.mean(best))
    assert f1_of("the U.S. cat", "US cat, a") == 1.0
    assert f1_of("cat cat dog", "cat cat") == pytest.approx(0.8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with questions for a kind of word in a context, and a trained run."""
    home = tmp_path_factory.mktemp("spans")
    random = np.random.default_rng(0)
    kinds = {"color": ["red", "blue"], "animal": ["cat", "dog"]}

    def row(_):
        kind, words = random.choice([*kinds]), [random.choice(words) for words in kinds.values()]
        context = " ".join(random.permutation([*words, "sat", "there"]))
        return {"q": f"which {kind}?", "text": context, "a": words[[*kinds].index(kind)]}

    write_splits(home, row, (80, 8, 8))
    train(answering(home), home / "run", home / "data", say=quiet)
    return home


def answering(home):
    data = splits_of(home, source="text", further_columns=(("question", "q"), ("answer", "a")))
    return small(SpanHead(ENCODER), SpanExtraction(), data, text=Text("bpe", 300))


def test_it_learns_resumes_and_is_the_same_on_devices(home):
    check_run(answering(home), home / "run", home / "data")


def test_answers_are_spans_of_the_context(home, capsys):
    (home / "in.tsv").write_text("question\tsource\nwhich color?\tred cat sat there\n")
    assert call(home, "predict", "run", "--input", "in.tsv") == 0
    (answer,) = capsys.readouterr().out.splitlines()
    assert answer
    assert answer in "red cat sat there"
    assert call(home, "predict", "run", "--input", "in.tsv", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] == answer
    assert result["score"] <= 0
    assert call(home, "evaluate", "run", "--data-dir", "data", "--json") == 0
    names = {score["name"] for score in json.loads(capsys.readouterr().out)["scores"]}
    assert {"exact match", "word F1", "perplexity", "accuracy"} <= names
