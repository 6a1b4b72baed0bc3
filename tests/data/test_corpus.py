"""The corpus: arrays of any type and shape, equal values that are stored once, and examples with bytes."""

import dataclasses

import numpy as np
import pytest

from seqlab.codecs.codec import Codec
from seqlab.codecs.label import Label
from seqlab.data.corpus import Corpus, encode_examples
from seqlab.data.records import prepare
from seqlab.system.errors import SeqlabError
from tests.mutants import Mutant, planted


@dataclasses.dataclass(frozen=True)
class Image(Codec):
    """Decodes bytes to rows of 3 pixels with 2 channels."""

    stores_once = True
    learned = False
    dtype = "<u2"
    shape = (3, 2)

    def encode(self, values):
        return [np.frombuffer(value, "<u2").reshape(-1, 3, 2) for value in values]


def images(count, seed=0):
    """Returns images of 1 to 4 rows, of which every third is repeated."""
    rng = np.random.default_rng(seed)
    new = [rng.integers(0, 1 << 16, (rng.integers(1, 5), 3, 2), dtype=np.uint16) for _ in range(count)]
    return [new[i - 2] if i % 3 == 2 else new[i] for i in range(count)]


def check_rows(corpus, expected):
    assert len(corpus) == len(expected)
    assert all(np.array_equal(corpus.row("image", i), image) for i, image in enumerate(expected))
    assert corpus.lengths("image")[:, 0].tolist() == [len(image) for image in expected]


def check_stored_once(corpus, expected):
    assert len(corpus.values["image"]) == sum(len(image) for i, image in enumerate(expected) if i % 3 != 2)


def encoded(tmp_path, expected):
    examples = [{"image": image.tobytes()} for image in expected]
    return encode_examples(iter(examples), len(examples), "images", {"image": Image()}, tmp_path)


def test_equal_values_are_stored_once(tmp_path):
    expected = images(20)
    for _ in range(2):  # written, then read
        corpus = encoded(tmp_path, expected)
        check_rows(corpus, expected)
        check_stored_once(corpus, expected)
        assert corpus.values["image"].dtype == np.uint16


@pytest.mark.parametrize("examples", [0, 1])
def test_few_examples(tmp_path, examples):
    check_rows(encoded(tmp_path, images(examples)), images(examples))


def test_counts_of_ids(tmp_path, monkeypatch):
    """The counts are those of each row, for columns that store equal values once or not, across chunks."""
    monkeypatch.setattr("seqlab.data.corpus.CHUNK", 4)
    random = np.random.default_rng(0)
    rows = [random.integers(0, 5, random.integers(0, 6)).astype(np.int32) for _ in range(11)]
    index, selected = random.integers(0, 11, 23), np.array([True, False, True, True, False])
    values, offsets = {"ids": np.concatenate(rows)}, {"ids": np.cumsum([0, *map(len, rows)])}
    expected = np.array([selected[row].sum() for row in rows])
    np.testing.assert_array_equal(Corpus(values, offsets).counts("ids", selected), expected)
    np.testing.assert_array_equal(Corpus(values, offsets, {"ids": index}).counts("ids", selected), expected[index])
    with pytest.raises(SeqlabError, match="an id is outside the vocabulary of 4"):
        Corpus(values, offsets, sizes={"ids": 4}).counts("ids", selected)


def test_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("seqlab.data.corpus.CHUNK", 4)
    check_rows(encoded(tmp_path, images(23)), images(23))


def test_the_first_example_that_cannot_be_encoded_is_named(tmp_path):
    labels = [{"label": name} for name in ["a", "b", "a", "c", "d"]]
    with pytest.raises(SeqlabError, match="column 'label', example 4: unknown label 'c'"):
        encode_examples(labels, 5, "labels", {"label": Label(("a", "b"))}, tmp_path)


def test_a_damaged_index(tmp_path):
    encoded(tmp_path, images(6))
    (path,) = (tmp_path / "cache").glob("*/image.index")
    for damage in (np.array([9] * 6), np.array([-1] * 6), np.arange(3)):
        damage.astype("<i8").tofile(path)
        with pytest.raises(SeqlabError, match="image.index: damaged"):
            encoded(tmp_path, images(6))


MUTANTS = (
    Mutant("rows by example", "data.corpus", "self.index[column][i] if column in self.index else i", "i", ""),
    Mutant("a value counted anew", "data.corpus", "if d not in self.rows}", "if True}", ""),
    Mutant("lengths of stored rows", "data.corpus", "lengths[c][self.index[c]] if c in self.index else", "", ""),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.bug for mutant in MUTANTS])
def test_a_planted_bug_is_caught(mutant, tmp_path, monkeypatch):
    with (
        planted(mutant, "seqlab.data.corpus") as corpus,
        pytest.raises((AssertionError, IndexError, ValueError, SeqlabError)),
    ):
        monkeypatch.setattr(corpus, "CHUNK", 4)
        expected = images(20)
        examples = iter([{"image": image.tobytes()} for image in expected])
        encoded_images = corpus.encode_examples(examples, 20, "images", {"image": Image()}, tmp_path)
        check_rows(encoded_images, expected)
        check_stored_once(encoded_images, expected)


@dataclasses.dataclass(frozen=True)
class Captions:
    """A dataset with bytes and strings."""

    changed: bytes = b""

    def key(self):
        return f"captions-{self.changed.hex()}"

    def splits(self):
        return {
            split: iter(
                [{"image": bytes([i, 255, 0]) + self.changed, "target": f"Bild {i} \u6771"} for i in range(3)]
            )
            for split in ("train", "validation", "test")
        }


def test_examples_of_bytes(tmp_path):
    data = prepare(Captions(), tmp_path)
    assert list(prepare(Captions(), tmp_path).read("test")) == list(Captions().splits()["test"])
    assert data.hashes != prepare(Captions(b"x"), tmp_path).hashes
