"""Datasets and their preparation."""

import dataclasses
import gzip
import hashlib
import os
import re
import subprocess
import sys
import time

import pytest

from seqlab import catalogue
from seqlab.data.records import VERSION, prepare
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.datasets.local_files import LocalFiles
from seqlab.datasets.mixture import Mixture
from seqlab.datasets.multi30k import Multi30k
from seqlab.datasets.parallel_text import ParallelText
from seqlab.datasets.tfds import Tfds, _complement
from seqlab.datasets.tiny_shakespeare import TinyShakespeare
from seqlab.system import parts
from seqlab.system.errors import SeqlabError


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Counts to `size`, or raises an error on the way."""

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
    with pytest.raises(SeqlabError, match="no split 'test': the splits are train, test_2016"):
        next(data.read("test"))


def test_an_interrupted_preparation_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare(Numbers(5, breaks=True), tmp_path)
    assert not list(tmp_path.rglob("*.json"))
    assert prepare(Numbers(), tmp_path).counts["train"] == 5
    # Prepared data is used, so the failing source is not read.
    assert prepare(Numbers(5, breaks=True), tmp_path).counts["train"] == 5


def test_a_full_disk(tmp_path):
    """A full disk is reported in one line. With free space, preparation succeeds."""
    code = (
        "import resource, sys; from pathlib import Path; from tests.datasets.test_datasets import Numbers, prepare\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1))\n"
        "prepare(Numbers(3000), Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    last = result.stderr.splitlines()[-1]
    assert re.search(
        r"^seqlab\.system\.errors\.SeqlabError: .*numbers.*: cannot be written: .*File too large", last
    ), last
    assert not (tmp_path / "numbers").exists()
    assert prepare(Numbers(3000), tmp_path).counts["train"] == 3000


def test_left_by_a_killed_process(tmp_path):
    (tmp_path / "numbers.part").mkdir()
    (tmp_path / "numbers.part" / "half").write_text("written")
    assert prepare(Numbers(7), tmp_path).counts["train"] == 7
    assert not (tmp_path / "numbers.part").exists()


def test_nothing_of_the_users_is_touched(tmp_path):
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "my.txt").write_text("mine")
    with pytest.raises(SeqlabError, match="exists but is not prepared data"):
        prepare(Numbers(), tmp_path)
    assert (tmp_path / "numbers" / "my.txt").read_text() == "mine"


@pytest.mark.parametrize("key", ["", "..", "../numbers", "a/../../b"])
def test_a_key_stays_below_the_root(tmp_path, monkeypatch, key):
    monkeypatch.setattr(Numbers, "key", lambda self: key)
    with pytest.raises(SeqlabError, match="a key must name a folder inside the data folder"):
        prepare(Numbers(), tmp_path / "data")


def test_no_examples(tmp_path):
    with pytest.raises(SeqlabError, match="no examples in train, test_2016"):
        prepare(Numbers(0), tmp_path)


def test_the_same_data_has_the_same_hash(tmp_path):
    hashes = [prepare(CldrPhrases(train=50, validation=5, test=5), tmp_path / n).hashes for n in "ab"]
    assert hashes[0] == hashes[1]
    other_hashes = prepare(CldrPhrases(train=50, validation=5, test=5, seed=1), tmp_path / "a").hashes
    assert other_hashes["train"] != hashes[0]["train"]


@pytest.mark.parametrize("name", catalogue.names("datasets"))
def test_every_dataset_is_found_by_its_file_name(name):
    cls = catalogue.part_class("datasets", name)
    assert cls.__module__.endswith(name)
    assert parts.describe("datasets")[name]


# Multi30k. The real files are not part of the project; a wrong line represents a damaged copy.


def test_multi30k_is_told_where_its_files_are(tmp_path):
    with pytest.raises(SeqlabError, match="seqlab prepare multi30k/en-de --version raw --folder DIR"):
        Multi30k().splits()
    with pytest.raises(SeqlabError, match=r"no file raw/train\.en"):
        Multi30k(folder=str(tmp_path)).splits()
    (tmp_path / "raw").mkdir()
    with gzip.open(tmp_path / "raw" / "train.en.gz", "wt") as stream:
        stream.write("not the real line\n")
    with pytest.raises(
        SeqlabError, match=r"train\.en\.gz: wrong checksum .*, expected 460a15fb.*: download it again"
    ):
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


@pytest.mark.parametrize("kind", [ParallelText, LocalFiles])
def test_an_edit_that_keeps_size_and_time_is_noticed(tmp_path, kind):
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    before = path.stat()
    names = dict.fromkeys((field.name for field in dataclasses.fields(kind) if "_" in field.name), str(path))
    dataset = ParallelText(**names) if kind is ParallelText else LocalFiles(str(path), str(path), target="text")
    first = dataset.key()
    time.sleep(0.05)
    path.write_text("two\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert dataset.key() != first


def test_bad_text_leaves_nothing(tmp_path):
    dataset = parallel(tmp_path)
    (tmp_path / "train.target").write_text("one line\n")
    with pytest.raises(SeqlabError, match=r"train\.target ends after line 1"):
        prepare(dataset, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.array_record*"))


PACKAGES = """Package: {name}
Source: {source} (1.0)
Description: dogs {number}
Description-md5: {md5}
Section: contrib/{section}
"""
ENGLISH = """Package: {name}
Description-md5: {md5}
Description-en: dogs {number}
 A dog is number {number}. It barks
 at {name}.
 .
 Everybody knows it.
"""
GERMAN = """Package: {name}
Description-md5: {md5}
Description-de: Hunde {number}
 Ein Hund ist Nummer {number}.
{dot} Jeder kennt ihn.
"""


def write_indices(folder, count=400):
    """Writes two packages per source, with different descriptions, a seventh of them translated as one paragraph."""
    folder.mkdir()
    entries = [
        {
            "name": f"p{i}",
            "source": f"s{i // 2}",
            "number": i,
            "md5": f"{i:032x}",
            "section": "games" if i % 3 else "net",
        }
        for i in range(count)
    ]
    (folder / "x_Packages").write_text("\n".join(PACKAGES.format(**entry) for entry in entries))
    (folder / "x_Translation-en.gz").write_bytes(
        gzip.compress("\n".join(ENGLISH.format(**e) for e in entries).encode())
    )
    german = [GERMAN.format(**e, dot="" if e["number"] % 7 else " .\n") for e in entries[::2]]
    (folder / "x_Translation-de").write_text("\n".join(german).replace("\n\n Jeder", "\n Jeder"))
    return folder


def test_debian_translation(tmp_path):
    data = prepare(DebianDescriptions("en-de", str(write_indices(tmp_path / "lists"))), tmp_path / "data")
    pairs = [pair for split in data.counts for pair in data.read(split)]
    assert {"source": "dogs 0", "target": "Hunde 0"} in pairs
    assert {"source": "A dog is number 14. It barks at p14.", "target": "Ein Hund ist Nummer 14."} in pairs
    assert {"source": "Everybody knows it.", "target": "Jeder kennt ihn."} in pairs
    assert not any(pair["source"] == "A dog is number 2. It barks at p2." for pair in pairs)  # paragraphs differ
    packages = (tmp_path / "lists" / "x_Packages").read_bytes()
    assert data.origin["sha256 of x_Packages"] == hashlib.sha256(packages).hexdigest()
    texts = {split: {text for pair in data.read(split) for text in pair.values()} for split in data.counts}
    assert not texts["train"] & texts["validation"] | texts["train"] & texts["test"]


@pytest.mark.parametrize("variant", ["synopsis", "section"])
def test_debian_splits_by_source_package(tmp_path, variant):
    data = prepare(DebianDescriptions(variant, str(write_indices(tmp_path / "lists"))), tmp_path / "data")
    assert sum(data.counts.values()) == 400
    homes = {}
    for split in data.counts:
        for example in data.read(split):
            number = int(example["source"].split("number ")[1].split(".")[0])
            assert homes.setdefault(number // 2, split) == split
            if variant == "section":
                assert example["label"] == ("games" if number % 3 else "net")
                assert example["source"].split("\n")[0] == f"dogs {number}"
                assert len(example["source"].split("\n")) == 4
            else:
                assert example["target"] == f"dogs {number}"
                assert len(example["source"].split("\n")) == 3


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "x_Translation-de").unlink(), "no index Translation-de in"),
        (
            lambda folder: (folder / "x_Packages").write_text("Package: a\nnonsense\n"),
            "x_Packages:2: expected 'Field: value' or an indented continuation line, found '",
        ),
        (
            lambda folder: (folder / "x_Translation-en.gz").write_bytes(b"no gzip"),
            "cannot be read: Not a gzipped file",
        ),
    ],
)
def test_debian_refuses(tmp_path, break_it, message):
    folder = write_indices(tmp_path / "lists")
    break_it(folder)
    with pytest.raises(SeqlabError, match=message):
        prepare(DebianDescriptions("en-de", str(folder)), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.json"))


def test_debian_without_apt(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SeqlabError, match="apt-get is not installed: pass the index files"):
        prepare(DebianDescriptions("en-de"), tmp_path)


def test_local_files(tmp_path):
    (tmp_path / "train.tsv").write_text("en\tkind\nnice\tgood\nbroken\nbad\tpoor\n")
    (tmp_path / "dev.tsv").write_text("kind\ten\ngood\tfine\n")
    files = {"train": str(tmp_path / "train.tsv"), "validation": str(tmp_path / "dev.tsv")}
    with pytest.raises(SeqlabError, match="train.tsv:3: 1 column, but the first line has 2"):
        prepare(LocalFiles(**files, source="en", label="kind"), tmp_path / "data")
    data = prepare(LocalFiles(**files, source="en", label="kind", errors="replace"), tmp_path / "data")
    assert list(data.read("train")) == [{"source": "nice", "label": "good"}, {"source": "bad", "label": "poor"}]
    assert list(data.read("validation")) == [{"source": "fine", "label": "good"}]
    assert data.origin == {"lines repaired (omitted, malformed)": "1"}
    with pytest.raises(SeqlabError, match="errors must be 'strict' or 'replace', not 'ignore'"):
        LocalFiles(errors="ignore")


def test_tiny_shakespeare_is_checked(tmp_path):
    with pytest.raises(SeqlabError, match="no file input.txt"):
        TinyShakespeare(str(tmp_path)).splits()
    (tmp_path / "input.txt").write_text("To be")
    with pytest.raises(
        SeqlabError, match=r"input.txt: wrong checksum .*, expected 86c4e6aa9db7c042.*: download it again"
    ):
        TinyShakespeare(str(tmp_path)).splits()


def test_mixture(tmp_path):
    data = prepare(Mixture((Numbers(3), Numbers(7)), (1.0, 3.0)), tmp_path)
    assert data.counts == {"train": 10, "test_2016": 10}
    assert data.part_sizes == {"train": [3, 7], "test_2016": [3, 7]}
    with pytest.raises(SeqlabError, match="needs 2 positive rates"):
        Mixture((Numbers(3), Numbers(7)), (1.0, 0.0))


def test_tfds_reads_what_is_prepared(tmp_path):
    import tensorflow_datasets as tfds

    prepare(Numbers(6), tmp_path)
    folder = str(tmp_path / "numbers" / VERSION)
    there = {"folder": folder, "source": "source", "target": "target", "validation": "test_2016", "test": ""}
    data = prepare(Tfds(**there), tmp_path / "data")
    assert data.counts == {"train": 6, "validation": 6}
    assert next(data.read("train")) == {"source": "eins und 0", "target": "\u00fcnd 0"}
    part = prepare(Tfds(**{**there, "validation": "train[:50%]"}), tmp_path / "data")
    assert part.counts == {"train": 3, "validation": 3}
    assert tfds.__name__ in sys.modules
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "wmt14_translate/de-en", "source": "en"},
            r"requires TensorFlow: run `pip install 'seqlab\[tfds-tf\]'`",
        ),
        (
            {"name": "cnn_dailymail", "source": "article"},
            "requires TensorFlow: .* .training does not need it., or pass --folder",
        ),
        ({"name": "imdb_revews", "source": "text"}, "has no dataset 'imdb_revews': did you mean 'imdb_reviews'?"),
        ({"name": "imdb_reviews"}, "choose features with"),
        ({"folder": "/nowhere", "source": "x"}, "/nowhere is not a prepared dataset"),
        ({"source": "x"}, "choose a dataset by name"),
        ({"source": "x", "test": "train[:1%]"}, "the test split must not be part of the training data"),
    ],
)
def test_tfds_refuses(arguments, message):
    with pytest.raises(SeqlabError, match=message):
        Tfds(**arguments).splits()


def test_slices_and_their_rest():
    assert [_complement(part) for part in ("train[:2%]", "train[90%:]")] == ["train[2%:]", "train[:90%]"]
    with pytest.raises(SeqlabError, match="would split the training data in two"):
        _complement("train[5%:10%]")
