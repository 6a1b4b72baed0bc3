"""Data sets and their preparation."""

import dataclasses
import gzip

import pytest

from seqlab import catalogue
from seqlab.datasets import prepare
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.datasets.multi30k import Multi30k
from seqlab.datasets.parallel_text import ParallelText
from seqlab.errors import SeqlabError


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Counts to `size`, or breaks on the way."""

    size: int = 5
    breaks: bool = False

    def key(self):
        return "numbers"

    def splits(self):
        def count():
            for i in range(self.size):
                yield {"source": f"eins und {i}", "target": f"ünd {i}"}
            if self.breaks:
                raise KeyboardInterrupt

        return {"train": count(), "test_2016": count()}


def test_random_access_in_order(tmp_path):
    data = prepare(Numbers(2500), tmp_path)
    assert data.counts == {"train": 2500, "test_2016": 2500}
    assert [example["target"] for example in data.read("train")] == [f"ünd {i}" for i in range(2500)]
    assert [example["source"] for example in data.read("test_2016", 998, 1002)] == [
        f"eins und {i}" for i in range(998, 1002)
    ]
    with pytest.raises(SeqlabError, match="no split 'test': there are train, test_2016"):
        next(data.read("test"))


def test_an_interrupted_preparation_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare(Numbers(5, breaks=True), tmp_path)
    assert not list(tmp_path.rglob("*.json"))
    assert prepare(Numbers(), tmp_path).counts["train"] == 5
    # What is there is used: the broken source is not read.
    assert prepare(Numbers(5, breaks=True), tmp_path).counts["train"] == 5


def test_left_by_a_killed_process(tmp_path):
    (tmp_path / "numbers.part").mkdir()
    (tmp_path / "numbers.part" / "half").write_text("written")
    assert prepare(Numbers(7), tmp_path).counts["train"] == 7
    assert not (tmp_path / "numbers.part").exists()


def test_nothing_of_the_users_is_touched(tmp_path):
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "my.txt").write_text("mine")
    with pytest.raises(SeqlabError, match="exists and is no prepared data"):
        prepare(Numbers(), tmp_path)
    assert (tmp_path / "numbers" / "my.txt").read_text() == "mine"


@pytest.mark.parametrize("key", ["", "..", "../numbers", "a/../../b"])
def test_a_key_stays_below_the_root(tmp_path, monkeypatch, key):
    monkeypatch.setattr(Numbers, "key", lambda self: key)
    with pytest.raises(SeqlabError, match="leaves the data root"):
        prepare(Numbers(), tmp_path / "data")


def test_no_examples(tmp_path):
    with pytest.raises(SeqlabError, match="no examples in train, test_2016"):
        prepare(Numbers(0), tmp_path)


def test_the_same_data_has_the_same_hash(tmp_path):
    hashes = [prepare(CldrPhrases(train=50, validation=5, test=5), tmp_path / n).hashes for n in "ab"]
    assert hashes[0] == hashes[1]
    other = prepare(CldrPhrases(train=50, validation=5, test=5, seed=1), tmp_path / "a").hashes
    assert other["train"] != hashes[0]["train"]


@pytest.mark.parametrize("name", catalogue.names("datasets"))
def test_every_data_set_is_found_by_its_file_name(name):
    cls = catalogue.part("datasets", name)
    assert cls.__module__.endswith(name)
    assert catalogue.describe("datasets")[name]


# Multi30k. The real files are not part of the project: a wrong line here stands for a damaged copy.


def test_multi30k_is_told_where_its_files_are(tmp_path):
    with pytest.raises(SeqlabError, match="seqlab prepare multi30k/en-de --folder DIR"):
        Multi30k().splits()
    with pytest.raises(SeqlabError, match=r"no file raw/train\.en"):
        Multi30k(folder=str(tmp_path)).splits()
    (tmp_path / "raw").mkdir()
    with gzip.open(tmp_path / "raw" / "train.en.gz", "wt") as stream:
        stream.write("not the real line\n")
    with pytest.raises(SeqlabError, match=r"train\.en\.gz: wrong checksum .*, expected 460a15fb"):
        Multi30k(folder=str(tmp_path)).splits()


@pytest.mark.parametrize("fields", [{"pair": "en-fr"}, {"pair": "../.."}, {"version": "moses"}])
def test_multi30k_refuses(fields):
    with pytest.raises(SeqlabError, match="multi30k has no"):
        Multi30k(**fields)


# Two text files


def parallel(tmp_path, **changed):
    fields = {}
    for split in ("train", "validation"):
        for side in ("source", "target"):
            path = tmp_path / f"{split}.{side}"
            path.write_text(f"{split} {side} 1\n{split} {side} 2\n")
            fields[f"{split}_{side}"] = str(path)
    return ParallelText(**{**fields, **changed})


def test_parallel_text(tmp_path):
    dataset = parallel(tmp_path)
    data = prepare(dataset, tmp_path / "data")
    assert list(data.read("validation")) == [
        {"source": f"validation source {i}", "target": f"validation target {i}"} for i in (1, 2)
    ]
    key = dataset.key()
    (tmp_path / "train.source").write_text("another 1\nline number 2\n")
    assert dataset.key() != key, "an edited file is other data"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_source": ""}, "parallel_text needs train_source"),
        ({"train_target": "nowhere.de"}, "train_target: no file nowhere.de"),
        ({"test_source": "only.en"}, "test_source: no file only.en"),
    ],
)
def test_parallel_text_refuses(tmp_path, changed, message):
    with pytest.raises(SeqlabError, match=message):
        parallel(tmp_path, **changed).key()


def test_bad_text_leaves_nothing(tmp_path):
    dataset = parallel(tmp_path)
    (tmp_path / "train.target").write_text("one line\n")
    with pytest.raises(SeqlabError, match=r"train\.target ends after line 1"):
        prepare(dataset, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.array_record*"))
