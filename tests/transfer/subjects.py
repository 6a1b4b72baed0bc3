"""A small encoder, tokenizers, a corpus and a classifier that tests of transfer learning share."""

import dataclasses
import functools

import numpy as np
from flax.traverse_util import flatten_dict

from seqlab.codecs.label import Label
from seqlab.codecs.sentencepiece import train_sentencepiece
from seqlab.config import Text
from seqlab.data.corpus import Corpus
from seqlab.encoders.bert import BertEncoder
from seqlab.laws.training import tiny_experiment
from seqlab.models.classifier_head import ClassifierHead
from seqlab.readers.words import Words
from seqlab.runs import checkpoint
from seqlab.tasks.classification import Classification
from seqlab.tasks.masked_tokens import TEXT
from tests.command import save_untrained
from tests.transfer.splits import splits_of, write_splits

ENCODER = BertEncoder(layers=1, dim=16, heads=2, hidden=24, dropout=0.0, norm="pre")
OLD = train_sentencepiece(["the cat sat on the mat", "a dog"], Text("bpe", 290 + 10))
WORDS = "north wind sun cloak traveler warm stronger agreed first making take off should considered".split()


@functools.cache
def codec_of_words():
    return train_sentencepiece([" ".join(WORDS), "\n".join(WORDS)], Text("bpe", 310), TEXT.reserved)


@functools.cache
def corpus_of_words(count=400):
    """Returns texts of one to five sentences, in which the first word of every sentence is the number of the text."""
    random, codec = np.random.default_rng(0), codec_of_words()
    sentences = [
        [f"{i} {' '.join(random.choice(WORDS, random.integers(1, 9)))}" for _ in range(i % 5 + 1)]
        for i in range(count)
    ]
    rows = [np.array(row, np.int32) for row in codec.encode(["\n".join(text) for text in sentences])]
    return Corpus({"source": np.concatenate(rows)}, {"source": np.cumsum([0, *map(len, rows)])})


def bert(**changes):
    return BertEncoder(Words(), layers=1, dim=8, heads=2, hidden=12, max_length=24, **changes)


def classifying():
    return dataclasses.replace(tiny_experiment(), model=ClassifierHead(bert()), task=Classification())


def pretrained(folder, codec):
    """Writes an untrained classifier with a tokenizer, and returns its parameters by path."""
    save_untrained(classifying(), {"source": codec, "label": Label(("x", "y"))}, folder, 3)
    return flatten_dict(checkpoint.restore(folder, 1)["params"], sep="/")


def moods(folder):
    """Writes tables of texts with one of two moods, and returns their dataset."""

    def row(i):
        return {"text": "the cat" if i % 2 else "a dog", "mood": "xy"[i % 2]}

    write_splits(folder, row, (12, 4, 4))
    return splits_of(folder, source="text", label="mood")
