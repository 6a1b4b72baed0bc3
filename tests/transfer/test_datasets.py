"""Datasets for pre-training and fine-tuning, on small files in place of the published ones."""

import hashlib

import pytest

from seqlab.data import verified_files
from seqlab.datasets import sentences, sick, snips
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.datasets.sentences import Sentences
from seqlab.datasets.sick import Sick
from seqlab.datasets.snips import Snips
from seqlab.system.errors import SeqlabError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Returns a function that writes a file and makes its checksum the expected one."""

    def write_file(checksums, name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        expected = (name, digest) if isinstance(checksums[next(iter(checksums))], tuple) else digest
        key = next((key for key, value in checksums.items() if value[0] == name), name)
        monkeypatch.setitem(checksums, key, expected)
        return str(tmp_path)

    return write_file


def splits(dataset):
    return {name: list(examples) for name, examples in dataset.splits().items()}


def test_trec(write):
    write(sentences.CHECKSUMS, "TREC.train.all", b"".join(b"%d Z\xfcrich %d ?\n" % (i % 6, i) for i in range(25)))
    folder = write(sentences.CHECKSUMS, "TREC.test.all", b"5 How  far ?\n")
    loaded = splits(Sentences("trec", folder))
    assert {name: len(examples) for name, examples in loaded.items()} == {"train": 23, "validation": 2, "test": 1}
    assert loaded["test"] == [{"source": "How far ?", "label": "number"}]
    assert [example["source"] for example in loaded["validation"]] == ["Zürich 9 ?", "Zürich 19 ?"]
    assert loaded["train"][0] == {"source": "Zürich 0 ?", "label": "description"}


def test_folds_of_reviews(write):
    """The test sets of the ten folds are all sentences, once; no fold has a sentence in two splits."""
    folder = write(
        sentences.CHECKSUMS, "rt-polarity.all", b"".join(b"%d text %d\x85\n" % (i % 2, i) for i in range(40))
    )
    tested = []
    for fold in range(10):
        loaded = splits(Sentences("mr", folder, fold))
        texts = {name: [example["source"] for example in examples] for name, examples in loaded.items()}
        assert sorted(text for split in texts.values() for text in split) == sorted(f"text {i}" for i in range(40))
        tested += texts["test"]
        assert Sentences("mr", folder, fold).key() == f"sentences/mr-{fold}"
    assert sorted(tested) == sorted(f"text {i}" for i in range(40))


@pytest.mark.parametrize(("name", "kind"), [("sst1", "fine"), ("sst2", "binary")])
def test_sentiment(write, name, kind):
    for part in ("train", "dev", "test"):
        folder = write(sentences.CHECKSUMS, f"stsa.{kind}.{part}", f"1 une crème brûlée ({part})\n".encode())
    loaded = splits(Sentences(name, folder))
    assert loaded["validation"] == [
        {"source": "une crème brûlée (dev)", "label": sentences.CLASSES[name][1]},
    ]


def test_sick(write):
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\r\n"
    for name, _ in list(sick.FILES.values()):
        folder = write(sick.FILES, name, f"{header}1\tA man\tA boy\t3.5\tNEUTRAL\r\n".encode())
    expected = {"source": "A man", "second": "A boy", "label": "neutral", "target": "3.5"}
    assert splits(Sick(folder)) == {split: [expected] for split in sick.FILES}


@pytest.mark.parametrize(("labels", "expected"), [("slots", "O B-city"), ("intents", "GetWeather")])
def test_snips(write, labels, expected):
    for folder in ("train", "valid", "test"):
        for name, line in (("seq.in", "in paris "), ("seq.out", "O B-city"), ("label", "GetWeather")):
            root = write(snips.CHECKSUMS, f"{folder}/{name}", f"{line}\n".encode())
    examples = splits(Snips(labels, root))["validation"]
    assert examples == [{"source": "in paris", "label": expected}]


@pytest.mark.parametrize("dataset", [Sentences("trec"), Sick(), Snips()], ids=lambda dataset: dataset.key())
def test_the_files_are_requested(dataset):
    with pytest.raises(SeqlabError, match="is not prepared: run `seqlab prepare .* --folder DIR`"):
        dataset.splits()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sentences("imdb"), "name must be one of trec, mr, sst2, sst1"),
        (lambda: Sentences("trec", fold=1), "fold must be from 0 to 9, and 0 for datasets other than mr"),
        (lambda: Snips("words"), "labels must be one of slots, intents"),
    ],
)
def test_refused(make, message):
    with pytest.raises(SeqlabError, match=message):
        make()


def test_other_content_is_refused(tmp_path):
    (tmp_path / "file.txt").write_text("cut off")
    with pytest.raises(SeqlabError, match=r"file\.txt: wrong checksum .*, expected 0000.*: download it again"):
        verified_files.read_verified(str(tmp_path), "file.txt", "0" * 64)
    with pytest.raises(SeqlabError, match=r"no file other\.txt or other\.txt\.gz"):
        verified_files.read_verified(str(tmp_path), "other.txt", "0" * 64)


def index_files(folder, sources):
    """Writes an index of one package per source package, with shared and own sentences."""
    packages, descriptions = [], []
    for i, source in enumerate(sources):
        packages.append(f"Package: p{i}\nSource: {source}\nSection: misc\nDescription-md5: {i:032x}\n")
        body = f" It is the tool number {i}. It runs everywhere.\n .\n Common sentence {i % 3}."
        descriptions.append(f"Package: p{i}\nDescription-md5: {i:032x}\nDescription-en: the tool {i}\n{body}\n")
    (folder / "Packages").write_text("\n".join(packages))
    (folder / "Translation-en").write_text("\n".join(descriptions))


def test_pre_training_text_is_apart_from_the_held_out_splits(tmp_path):
    """No sentence of a package that the other variants hold out is in the text, and no package is in two splits."""
    count = 600
    index_files(tmp_path, [f"source{i}" for i in range(count)])
    text, sections, synopses = (splits(DebianDescriptions(v, str(tmp_path))) for v in ("text", "section", "synopsis"))
    held_out = {
        sentence
        for loaded in (sections, synopses)
        for split in ("validation", "test")
        for example in loaded[split]
        for name in ("source", "target")
        for sentence in example.get(name, "").split("\n")
        if sentence
    }
    assert len(held_out) > 20
    assert "It runs everywhere." in held_out
    lines = {split: {line for e in text[split] for line in e["source"].split("\n")} for split in text}
    for sentences_of_split in lines.values():
        assert not sentences_of_split & held_out
    tools = [{line for line in lines[split] if line.startswith("the tool")} for split in lines]
    assert sum(map(len, tools)) == len(set.union(*tools)) > count * 0.8
    assert all(e["source"] == e["target"] for examples in text.values() for e in examples)
    assert min(len(examples) for examples in text.values()) > 0
