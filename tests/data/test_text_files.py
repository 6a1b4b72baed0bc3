"""Text files, codecs, and the cache of ids."""

import bz2
import gzip
import io
import json
import lzma
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqlab.codecs.label import Label
from seqlab.codecs.numbers import Numbers
from seqlab.codecs.sentencepiece import SentencePiece, train_sentencepiece
from seqlab.codecs.symbols import Symbols
from seqlab.config import Text
from seqlab.data.codec_files import load_codecs, save_codecs
from seqlab.data.corpus import encode_examples
from seqlab.data.text_files import MAGIC, read_lines, read_pairs, read_table
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.system.errors import SeqlabError
from seqlab.system.files import open_output

PAIR = {"source": SentencePiece(), "target": SentencePiece()}


def write(path, data: bytes):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_lines(tmp_path, name):
    path = write(tmp_path / name, "\ufeffeins\r\nzwei \n\ndrei".encode())
    assert list(read_lines(path)) == ["eins", "zwei ", "", "drei"]
    assert list(read_lines(io.BytesIO(b"x\ny\n"))) == ["x", "y"]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_lines_or_one_error(data):
    try:
        lines = list(read_lines(io.BytesIO(data)))
    except SeqlabError as error:
        assert "standard input:" in str(error)
    else:
        assert all(line == line.rstrip("\r\n") and "\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"good\nb\xffd\n", r"a\.txt:2: not UTF-8"),
        ("a.gz", None, r"a\.gz: cannot be read.*Not a gzipped file"),
        ("a.txt.gz", "cut", r"a\.txt\.gz: cannot be read"),
        ("none.txt", "missing", r"none\.txt: cannot be read.*No such file"),
    ],
)
def test_unreadable(tmp_path, name, data, message):
    path = tmp_path / name
    if data == "cut":
        path.write_bytes(gzip.compress(b"line\n" * 1000)[:-12])
    elif data is None:
        path.write_bytes(b"plain text\n")
    elif data != "missing":
        write(path, data)
    with pytest.raises(SeqlabError, match=message):
        list(read_lines(path))


def test_pairs(tmp_path):
    source, target = write(tmp_path / "s", b"a\nb\n"), write(tmp_path / "t", b"x\ny\nz\n")
    with pytest.raises(SeqlabError, match=r"s ends after line 2, but .*t continues"):
        list(read_pairs(source, target))
    write(target, b"x\n  \n")
    with pytest.raises(SeqlabError, match=r"t:2: empty line"):
        list(read_pairs(source, target))


TRAINING = ["ein Hund läuft", "zwei Hunde laufen über die Wiese", "und noch ein Satz, mit Komma."] * 30


@pytest.fixture(scope="module")
def bpe():
    return train_sentencepiece(TRAINING, Text("bpe", 300))


def test_tokenizer_is_deterministic(bpe):
    assert train_sentencepiece(TRAINING, Text("bpe", 300)).digest == bpe.digest
    assert (bpe.pad, bpe.bos, bpe.eos, bpe.unk) == tuple(
        getattr(bpe.processor, f"{name}_id")() for name in ("pad", "bos", "eos", "unk")
    )


# SentencePiece reads its blank symbol as a blank, and ends strings at a NUL.
TEXTS = st.text(st.characters(exclude_characters="\u2581\0", exclude_categories=("Cs",)), max_size=40)


@settings(max_examples=80, deadline=None)
@given(TEXTS)
def test_any_text_comes_back(text):
    """Decoding restores text, except for repeated blanks, and white space at its start and end."""
    text = " ".join(part for part in text.split(" ") if part)
    tokenizer = tiny_tokenizer()
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode([tokenizer.bos, *ids, tokenizer.eos, tokenizer.pad]) == text.strip()


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_kinds(kind, bpe):
    tokenizer = train_sentencepiece(TRAINING, Text(kind, 300))
    ids = tokenizer.encode(["ein Satz, unbekannt 東京"])[0]
    assert tokenizer.decode(ids) == "ein Satz, unbekannt 東京"
    assert tokenizer.unk not in ids


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_lower_case(kind):
    """Texts that differ only in case or in compatibility characters have the same ids, unless case is kept."""
    texts = ["Zwei HUNDE laufen", "zwei hunde laufen", "ｚwei Hunde laufen"]
    cased, uncased = (train_sentencepiece(TRAINING, Text(kind, 300, lowercase=choice)) for choice in (False, True))
    assert len(set(map(tuple, uncased.encode(texts)))) == 1
    assert uncased.decode(uncased.encode(texts)[0]) == texts[1]
    assert len(set(map(tuple, cased.encode(texts)))) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (("unigram", 400), "text.kind must be one of bpe, char, word"),
        (("bpe", 100), "must be at least 300"),
        (("bpe", 50_000), "text.size 50000 does not fit the training data: set it to at most"),
    ],
)
def test_tokenizers_that_cannot_be(text, message):
    with pytest.raises(SeqlabError, match=message):
        train_sentencepiece(TRAINING, Text(*text))


def test_not_a_tokenizer():
    with pytest.raises(SeqlabError, match="not a SentencePiece model"):
        SentencePiece(b"garbage").encode(["x"])


def test_a_tokenizer_of_another_kind():
    import sentencepiece

    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING), model_writer=output, model_type="char", vocab_size=30, minloglevel=2
    )
    with pytest.raises(
        SeqlabError, match="must have the ids 0, 1, 2, 3 for pad, bos, eos, unk, .* --pad_id=0 --bos_id=1"
    ):
        SentencePiece(output.getvalue()).encode(["x"])


def test_saved_codecs(tmp_path, bpe):
    save_codecs({"source": bpe, "target": bpe}, tmp_path)
    assert [p.name for p in (tmp_path / "codecs").iterdir()] == ["source+target.sentencepiece"]
    assert load_codecs(tmp_path, PAIR)["source"].digest == bpe.digest
    apart = tmp_path / "apart"
    apart.mkdir()
    save_codecs({"source": bpe, "target": tiny_tokenizer()}, apart)
    loaded = load_codecs(apart, PAIR)
    assert (loaded["source"].digest, loaded["target"].digest) == (bpe.digest, tiny_tokenizer().digest)


COLUMNS = ("source", "target")


def test_cache(tmp_path):
    codecs = {"source": tiny_tokenizer(), "target": tiny_tokenizer()}
    examples = [{"source": "a b", "target": ""}, {"source": "c", "target": "xyz"}]

    def broken():
        yield examples[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_examples(broken(), 2, "data", codecs, tmp_path)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]
    first = encode_examples(iter(examples), 2, "data", codecs, tmp_path)
    again = encode_examples(broken(), 2, "data", codecs, tmp_path)  # reads no text
    assert np.array_equal(first.lengths(*COLUMNS), again.lengths(*COLUMNS))
    assert again.lengths(*COLUMNS)[0, 1] == 0
    assert tiny_tokenizer().decode(again.row("target", 1).tolist()) == "xyz"


def test_output_to_a_device():
    with open_output(Path("/dev/null")) as stream:
        stream.write("nothing")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["out.txt", "out.txt.gz"])
def test_output_is_whole_or_not_there(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(RuntimeError), open_output(path) as stream:
        stream.write("half")
        raise RuntimeError
    assert not any(tmp_path.iterdir())
    with open_output(path) as stream:
        stream.write("ganz\n")
    assert list(read_lines(path)) == ["ganz"]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_lines_or_an_error(tmp_path_factory, content, zipped):
    path = tmp_path_factory.mktemp("lines") / ("file.gz" if zipped else "file")
    path.write_bytes(gzip.compress(content) if zipped else content)
    repairs = Counter()
    if any(content.startswith(magic) for magic in MAGIC.values()):
        with pytest.raises(SeqlabError, match="add .gz to its name|or compress it with gzip|convert it to UTF-8"):
            list(read_lines(path, repairs))
        return
    lines = content.split(b"\n")
    repaired = list(read_lines(path, repairs))
    assert len(repaired) == len(lines) - (not lines[-1])
    assert not any("\0" in line or "\n" in line for line in repaired)
    try:
        assert list(read_lines(path)) == repaired
        assert not repairs
    except SeqlabError as error:
        assert re.search(rf"{re.escape(str(path))}:\d+: ", str(error))
        assert repairs


def test_a_line_of_a_megabyte(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(b"ok\n" + b"x" * (1 << 20) + b"\nok\n")
    with pytest.raises(SeqlabError, match="long:2: a line of 1,048,577 bytes; the maximum is 1,048,576: split"):
        list(read_lines(path))
    path.write_bytes(b"ok\n" + b"x" * ((1 << 20) - 1) + "\u00fc".encode() + b"\nok\n")  # truncated within a character
    repairs = Counter()
    assert [len(line) for line in read_lines(path, repairs)] == [2, (1 << 20) - 1, 2]
    assert repairs == {"truncated to a megabyte": 1}


TABLES = {
    "a.tsv": "en\tde\n{}\nc\td\n",
    "a.jsonl": '{{"en": "a", "de": "b"}}\n{}\n',
}


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("a.tsv", "x\ty\tz", "a.tsv:2: 3 columns, but the first line has 2"),
        ("a.tsv", "x\t ", "a.tsv:2: 'de' is empty or not text"),
        ("a.jsonl", '{"en": "a"', "a.jsonl:2: not valid JSON: "),
        ("a.jsonl", "[1]", "a.jsonl:2: not a JSON object"),
        ("a.jsonl", '{"en": "a"}', "a.jsonl:2: no column 'de'"),
        ("a.jsonl", '{"en": "a", "de": ["b"]}', "a.jsonl:2: 'de' is empty or not text"),
        ("a.jsonl", '{"en": "a", "de": true}', "a.jsonl:2: 'de' is empty or not text"),
        ("a.jsonl", '{"en": "a", "de": 1e400}', "a.jsonl:2: 'de' is empty or not text"),
        ("a.jsonl", '{"en": "a", "de": NaN}', "a.jsonl:2: not valid JSON: NaN is not JSON"),
        (
            "a.jsonl",
            '{"en": "a", "de": "\\ud800"}',
            "a.jsonl:2: 'de' contains a NUL character or an unpaired surrogate",
        ),
    ],
)
def test_broken_rows(tmp_path, name, line, message):
    path = tmp_path / name
    path.write_text(TABLES[name].format(line))
    columns = {"source": "en", "target": "de"}
    with pytest.raises(SeqlabError, match=re.escape(message)):
        list(read_table(path, columns))
    repairs = Counter()
    assert len(list(read_table(path, columns, repairs))) == 1
    assert repairs == {"omitted, malformed": 1}


@pytest.mark.parametrize(("name", "line"), [("a.tsv", "inf\t-inf"), ("a.jsonl", '{"en": "inf", "de": "-inf"}')])
def test_the_word_inf_is_text(tmp_path, name, line):
    path = tmp_path / name
    path.write_text(TABLES[name].format(line))
    assert {"source": "inf", "target": "-inf"} in list(read_table(path, {"source": "en", "target": "de"}))


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", ""), ("a.tsv", "en\tde\n"), ("a.jsonl", ""), ("a.tsv", "en\tde\nx\n")]
)
def test_a_table_without_examples(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    columns = {"target": "de"}
    with pytest.raises(SeqlabError, match=rf"{name}: no examples"):
        list(read_table(tmp_path / name, columns, Counter()))


def test_parallel_files_without_pairs(tmp_path):
    for side in "ab":
        (tmp_path / side).write_text("")
    with pytest.raises(SeqlabError, match="a and .*b: no pairs of lines"):
        list(read_pairs(tmp_path / "a", tmp_path / "b"))


def test_tables(tmp_path):
    rows = [{"en": "a dog", "de": "ein Hund", "n": "1"}, {"en": "x", "de": "\u00fc", "n": "2"}]
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\r\n".join(json.dumps(row) for row in rows) + "\r\n")
    table = "\n".join("\t".join(line) for line in [list(rows[0]), *(row.values() for row in rows)]) + "\n"
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(table.encode()))
    expected = [{"source": row["en"], "target": row["de"]} for row in rows]
    for name in ("a.jsonl", "a.tsv.gz"):
        assert list(read_table(tmp_path / name, {"source": "en", "target": "de"})) == expected
    with pytest.raises(SeqlabError, match="a.tsv.gz:1: no column 'fr': the file has 'en', 'de', 'n'"):
        list(read_table(tmp_path / "a.tsv.gz", {"source": "fr"}))
    (tmp_path / "twice.tsv").write_text("en\ten\nx\ty\n")
    with pytest.raises(SeqlabError, match="twice.tsv:1: the column 'en' occurs twice"):
        list(read_table(tmp_path / "twice.tsv", {"source": "en"}))
    with pytest.raises(SeqlabError, match="a table must be a .tsv"):
        list(read_table(tmp_path / "a.csv", {"source": "fr"}))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40), st.sampled_from([".tsv", ".jsonl", ".txt"]))
def test_any_text_is_a_table_or_an_error(tmp_path_factory, content, ending):
    path = tmp_path_factory.mktemp("tables") / f"file{ending}"
    path.write_text(content, newline="")
    try:
        for example in read_table(path, {"target": "a"}):
            assert list(example) == ["target"]
    except SeqlabError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_newlines_survive(kind):
    tokenizer = train_sentencepiece(TRAINING, Text(kind, 380))
    for text in ("a\nb", "one\n\ntwo three\nfour"):
        ids = tokenizer.encode([text])[0]
        assert ids.count(tokenizer.newline) == text.count("\n")
        assert tokenizer.decode(ids) == text


def test_a_character_is_a_token():
    text = "  to be,  or\nnot "
    tokenizer = train_sentencepiece([text], Text("char", 300))
    assert len(tokenizer.encode([text])[0]) == len(text)


def test_labels(tmp_path):
    labels = Label(("no", "yes\u00df"))
    save_codecs({"source": tiny_tokenizer(), "label": labels}, tmp_path)
    assert load_codecs(tmp_path, {"source": SentencePiece(), "label": Label()}) == {
        "source": tiny_tokenizer(),
        "label": labels,
    }
    assert labels.encode(["yes\u00df", "no"]) == [[1], [0]]
    with pytest.raises(SeqlabError, match="unknown label 'maybe'"):
        labels.encode(["no", "maybe"])


def test_symbols_and_numbers(tmp_path):
    symbols = Symbols(("a", "b"))
    assert symbols.encode(["b  a b", ""]) == [[1, 0, 1], []]
    assert symbols.decode([1, 0]) == "b a"
    with pytest.raises(SeqlabError, match="unknown symbol 'c'"):
        symbols.encode(["a c"])
    numbers = Numbers()
    (values,) = numbers.encode(["0.25 -1e3\n7"])
    assert values.tolist() == [0.25, -1000.0, 7.0]
    assert numbers.decode(values) == "0.25 -1000.0 7.0"
    for text in ("1 x", "nan", "1e99"):
        with pytest.raises(SeqlabError, match="expected finite numbers"):
            numbers.encode([text])
    save_codecs({"source": numbers, "label": symbols}, tmp_path)
    loaded = load_codecs(tmp_path, {"source": Numbers(), "label": Symbols()})
    assert loaded == {"source": numbers, "label": symbols}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bz2.compress(b"text"), "t: the file is compressed with bzip2: decompress it, or compress it with gzip"),
        (lzma.compress(b"text"), "t: the file is compressed with xz: decompress it, or compress it with gzip"),
        (
            b"\x28\xb5\x2f\xfdtext",
            "t: the file is compressed with Zstandard: decompress it, or compress it with gzip",
        ),
        (
            gzip.compress(b"text", mtime=0),
            "t: the file is compressed with gzip: decompress it, or add .gz to its name",
        ),
        ("text".encode("utf-16"), "t: the text is UTF-16: convert it to UTF-8"),
    ],
)
def test_what_is_no_plain_text(tmp_path, content, message):
    """Such files are refused even with repairs, since they cannot be repaired."""
    (tmp_path / "t").write_bytes(content)
    for repairs in (None, Counter()):
        with pytest.raises(SeqlabError, match=message):
            list(read_lines(tmp_path / "t", repairs))


def test_a_megabyte_of_continuation_bytes(tmp_path):
    (tmp_path / "t").write_bytes(b"\x80" * ((1 << 20) + 5) + b"\nabc\n")
    repairs = Counter()
    assert [len(line) for line in read_lines(tmp_path / "t", repairs)] == [1 << 20, 3]
    assert repairs == {"truncated to a megabyte": 1, "not UTF-8": 1}


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (["a b c d e"] * 5, 8000, r"text\.size 8000 does not fit the training data: set it to at most 2\d\d$"),
        ([chr(0x4E00 + n) for n in range(400)], 300, r"text\.size 300 .*: set it to at least 6\d\d, the number of"),
    ],
)
def test_a_vocabulary_that_does_not_fit_names_the_size_that_does(texts, size, message):
    with pytest.raises(SeqlabError, match=message) as caught:
        train_sentencepiece(texts, Text("bpe", size))
    limit = int(re.findall(r"at (?:most|least) (\d+)", str(caught.value))[0])
    assert train_sentencepiece(texts, Text("bpe", max(limit, 300))).size if limit > 300 else limit
