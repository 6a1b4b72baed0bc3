"""The commands that generate text, on a run with untrained parameters."""

import gzip
import itertools
import json
import re
from pathlib import Path

import pytest

import seqlab
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.data.codec_files import load_codecs
from seqlab.decoding.alignments import words_of
from seqlab.decoding.output_format import Format
from seqlab.decoding.stream import LineStreams, decode_stream, shard_range
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import loading
from seqlab.search.requests import contains
from tests.command import call, save_untrained


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with two runs."""
    home = tmp_path_factory.mktemp("home")
    for seed, name in enumerate(("run", "other")):
        save_untrained(tiny_experiment(), dict.fromkeys(("source", "target"), tiny_tokenizer()), home / name, seed)
    return home


def test_decode_and_its_files(home, capsys):
    lines = ["3 hours", "", "Monday and Tuesday"]
    with gzip.open(home / "in.gz", "wt", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    assert call(home, "decode", "run", "--input", "in.gz", "--output", "out.gz", "--beam", "2") == 0
    with gzip.open(home / "out.gz", "rt", encoding="utf-8") as stream:
        written = stream.read().split("\n")[:-1]
    assert len(written) == 3
    assert written[1] == ""
    assert seqlab.load(home / "run").translate(lines, beam=2) == written
    capsys.readouterr()
    assert call(home, "decode", "run", "--nbest", "2", "--beam", "2", "--max-length", "4", stdin="a\n\nb\n") == 0
    rows = [line.split(" ||| ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert float(rows[0][2]) >= float(rows[1][2])
    assert call(home, "decode", "run", "--scores", "--beam", "1", stdin="a\n") == 0
    assert len(capsys.readouterr().out.split(" ||| ")) == 2


def test_where_nothing_can_be_written(home):
    """If the minimum length exceeds the vocabulary and no token may repeat, the text is empty, without an error."""
    vocabulary = load_codecs(home / "run", {"target": SentencePiece()})["target"].size
    options = ("--beam", "2", "--no-repeat", "1", "--scores", "--output", "nothing.txt")
    lengths = ("--min-length", str(vocabulary + 2), "--max-length", str(vocabulary + 3))
    assert call(home, "decode", "run", *options, *lengths, "--preset", "hf", stdin="one\n") == 0
    assert (home / "nothing.txt").read_text(encoding="utf-8") == " ||| -inf\n"


def test_decoding_with_several_runs(home):
    """An ensemble of a run with itself generates the same text as the run alone."""
    options = ("--beam", "2", "--max-length", "8", "--scores")
    assert call(home, "decode", "run", *options, "--output", "alone.txt", stdin="one two\n1 2 3\n") == 0
    together = ("--ensemble", "other", "--mean", "log_probabilities", "--output", "together.txt")
    assert call(home, "decode", "run", *options, *together, stdin="one two\n1 2 3\n") == 0
    alike = ("--ensemble", "run", "--output", "alike.txt")
    assert call(home, "decode", "run", *options, *alike, stdin="one two\n1 2 3\n") == 0
    alone, alike = ((home / name).read_text(encoding="utf-8") for name in ("alone.txt", "alike.txt"))
    assert alone == alike
    assert (home / "together.txt").read_text(encoding="utf-8").count("\n") == 2


def test_forcing(home):
    """Each target, empty ones included, gives a line. Its tokens spell the target, and their log-probabilities add
    up.
    """
    (home / "source.txt").write_text("one two\n1 2 3\n\n", encoding="utf-8")
    (home / "target.txt").write_text("eins zwei\n\n3\n", encoding="utf-8")
    command = (
        "logprob",
        "run",
        "--input",
        "source.txt",
        "--target",
        "target.txt",
        "--tokens",
        "--output",
        "forced.txt",
    )
    assert call(home, *command) == 0
    lines = [line.split(" ||| ") for line in (home / "forced.txt").read_text(encoding="utf-8").splitlines()]
    for (total, *tokens), text in zip(lines, ("eins zwei", "", "3"), strict=True):
        pieces, values = zip(*(token.rsplit(" ", 1) for token in tokens), strict=True)
        assert sum(map(float, values)) == pytest.approx(float(total), abs=1e-3)
        spelled = re.sub("<0x(..)>", lambda byte: chr(int(byte[1], 16)), "".join(pieces))
        assert spelled.replace("\u2581", " ") == f"{text}</s>"


@pytest.mark.parametrize("preset", ["seqlab", "gnmt", "fairseq", "joey", "marian", "ct2", "hf"])
def test_decoding_by_presets(home, preset):
    """Each preset respects lengths, n-grams and forbidden tokens."""
    options = ("--min-length", "4", "--max-length", "9", "--no-repeat", "1", "--forbid", "a", "e", "--nbest", "2")
    command = ("decode", "run", "--beam", "2", "--preset", preset, *options)
    assert call(home, *command, "--output", "written.txt", stdin="one two\n\n1 2 3\n") == 0
    lines = [line.split(" ||| ") for line in (home / "written.txt").read_text(encoding="utf-8").splitlines()]
    assert [number for number, _, _ in lines] == ["0", "0", "1", "1", "2", "2"]
    written = [text for number, text, score in lines if number != "1" and score != "-inf"]
    assert written
    assert not set("".join(written)) & {"a", "e"}


LINES = ["one two", "", "1 2 3", "Monday", "three days", "in 4 hours", "now"]
OPTIONS = ("--beam", "3", "--max-length", "8")


def written(home, name):
    return (home / name).read_text(encoding="utf-8").split("\n")[:-1]


@pytest.fixture(scope="module")
def whole(home):
    """The texts of an uninterrupted decoding."""
    (home / "in.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    assert call(home, "decode", "run", *OPTIONS, "--input", "in.txt", "--output", "whole.txt") == 0
    return written(home, "whole.txt")


@pytest.mark.parametrize("left", ["", "half", "cut", "all"])
def test_going_on_where_it_was_left(home, whole, left):
    """The output already contains nothing, some lines, an incomplete line, or all lines. Only missing lines are
    decoded.
    """
    command = ("decode", "run", *OPTIONS, "--input", "in.txt", "--output", f"{left}.txt", "--resume")
    assert call(home, *command) == 0
    assert written(home, f"{left}.txt") == whole
    marked = ["MARK", *whole[1:]]
    keep = {"": "", "half": "\n".join(marked[:3]) + "\n", "cut": "\n".join(marked[:5])[:-1]}.get(
        left, "\n".join(marked) + "\n"
    )
    (home / f"{left}.txt").write_text(keep, encoding="utf-8")
    assert call(home, *command) == 0
    assert written(home, f"{left}.txt") == (whole if left == "" else marked)


def test_going_on_with_a_list(home):
    """If the second of an input's two lines is missing, both are decoded again."""
    command = ("decode", "run", *OPTIONS, "--input", "in.txt", "--output", "list.txt", "--nbest", "2", "--resume")
    assert call(home, *command) == 0
    lines = written(home, "list.txt")
    (home / "list.txt").write_text("\n".join(lines[:5]) + "\n", encoding="utf-8")
    assert call(home, *command) == 0
    assert written(home, "list.txt") == lines
    assert [line.split(" ||| ")[0] for line in lines] == [str(n // 2) for n in range(14)]


def test_going_on_with_something_else_is_refused(home, whole, capsys):
    command = ("decode", "run", *OPTIONS, "--input", "in.txt", "--output", "going.txt", "--resume")
    assert call(home, *command) == 0
    (home / "changed.txt").write_text("\n".join(LINES[:-1]) + "\n", encoding="utf-8")
    capsys.readouterr()
    for more, reason in (
        (("--beam", "2"), "changed: search"),
        (("--input", "changed.txt"), "changed: input"),
        (("--scores",), "changed: format"),
        (("--shard", "1/2"), "changed: shard"),
    ):
        assert call(home, *command, *more) == 2
        assert reason in capsys.readouterr().err
    assert call(home, "decode", "other", *command[2:]) == 2
    assert "changed: parameters" in capsys.readouterr().err
    assert written(home, "going.txt") == whole
    for more, reason in (
        (("--input", "in.txt", "--output", "whole.txt"), "whole.txt was not written with --resume"),
        (("--input", "in.txt", "--output", "new.gz"), "--resume needs a plain output file"),
        (("--input", "in.txt"), "give --output"),
        ((), "give --input"),
    ):
        assert call(home, "decode", "run", *OPTIONS, "--resume", *more, stdin="") == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 3, 9])
def test_shards_are_the_whole(home, whole, count):
    found = []
    for index in range(1, count + 1):
        command = (
            "decode",
            "run",
            *OPTIONS,
            "--input",
            "in.txt",
            "--output",
            "part.txt",
            "--shard",
            f"{index}/{count}",
        )
        assert call(home, *command) == 0
        found += written(home, "part.txt")
    assert found == whole


def test_shares():
    assert [list(shard_range(5, f"{i}/3")) for i in (1, 2, 3)] == [[0], [1, 2], [3, 4]]
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""):
        with pytest.raises(ValueError, match="--shard must be I/N"):
            shard_range(5, wrong)


def test_lines_that_are_no_text(home, capsys):
    (home / "bad.txt").write_bytes(b"one\ntw\xff\n")
    assert call(home, "decode", "run", *OPTIONS, "--input", "bad.txt", "--output", "bad.out") == 2
    assert "bad.txt:2: not UTF-8" in capsys.readouterr().err
    assert not (home / "bad.out").exists()
    replaced = ("--input", "bad.txt", "--output", "bad.out", "--errors", "replace")
    assert call(home, "decode", "run", *OPTIONS, *replaced) == 0
    assert "lines repaired (not UTF-8): 1" in capsys.readouterr().err
    assert written(home, "bad.out") == loading.load(home / "run").translate(["one", "tw\ufffd"], beam=3, max_length=8)


def test_what_texts_begin_with_and_have(home, whole, capsys):
    (home / "begin.txt").write_text("".join(f"{'ab' * (n % 2)}\n" for n in range(7)), encoding="utf-8")
    (home / "must.txt").write_text("1\n\n\n2\t a\n\t\n3\n3\n", encoding="utf-8")
    files = ("--prefixes", "begin.txt", "--constraints", "must.txt", "--input", "in.txt")
    assert call(home, "decode", "run", "--beam", "8", "--max-length", "12", *files, "--output", "told.txt") == 0
    texts = written(home, "told.txt")
    assert texts[1] == ""  # a blank line gives an empty text
    assert [text.startswith("ab") for text in texts] == [False, False, False, True, False, True, False]
    tokenizer = tiny_tokenizer()
    for text, phrases in zip(texts, (["1"], [], [], ["2", "a"], [], ["3"], ["3"]), strict=True):
        assert all(phrase in text for phrase in phrases)
        assert all(contains(tokenizer.encode([text])[0], tokenizer.encode([phrase])[0][1:]) for phrase in phrases)
    (home / "must.txt").write_text("1\n", encoding="utf-8")
    capsys.readouterr()
    assert call(home, "decode", "run", *files) == 2
    assert "--constraints has fewer lines than the input" in capsys.readouterr().err


def test_repairs_are_told_of_the_lines_of_the_shard(home, capsys):
    (home / "bad.txt").write_bytes(b"a\n\xff\nb\nc\xfe\n")
    options = ("--beam", "1", "--max-length", "3", "--input", "bad.txt", "--errors", "replace")
    for part in ("1/2", "2/2"):
        assert call(home, "decode", "run", *options, "--shard", part) == 0
        assert "lines repaired (not UTF-8): 1" in capsys.readouterr().err


def test_prefixes_need_an_input(home, capsys, monkeypatch):
    (home / "begin.txt").write_text("a\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert call(home, "decode", "run", "--prefixes", "begin.txt") == 2
    assert "--prefixes and --constraints need --input" in capsys.readouterr().err


def test_alignments(home, whole, capsys):
    """Links join words; JSON has shares of attention by token; the texts are the same as without alignments."""
    run = loading.load(home / "run")

    def decoded(lines, form, **search):
        return decode_stream(run.trained, run.search_config(**search), LineStreams(lines), Format(alignments=form))

    options = {"beam": 3, "max_length": 8}
    pharaoh = [line.split(" ||| ") for line in decoded(LINES, "pharaoh", **options)]
    assert [line[0] for line in pharaoh] == whole
    known = [json.loads(line) for line in decoded(LINES, "json", **options)]
    assert [one["text"] for one in known] == whole
    for line, one, (_, links) in zip(LINES, known, pharaoh, strict=True):
        if not line:
            assert links == ""
            continue
        assert one["source"][-1] == one["target"][-1] == "</s>"
        assert [j for _, j, _ in one["alignment"]] == list(range(len(one["target"])))
        assert all(0 <= i < len(one["source"]) and 0 < share <= 1 for i, _, share in one["alignment"])
        source, target = words_of(one["source"]), words_of(one["target"])
        assert max(source) + 1 == len(line.split())
        pairs = {(source[i], target[j]) for i, j, _ in one["alignment"]}
        assert links == " ".join(f"{i}-{j}" for i, j in sorted(pairs) if min(i, j) >= 0)
    none = {"beam": 2, "preset": "hf", "no_repeat": 1, "min_length": 400, "max_length": 400}
    (nothing,) = decoded(["a"], "json", **none)
    empty = {"source": [], "target": [], "alignment": []}
    assert json.loads(nothing) == {"line": 0, "text": "", "score": None, "log_prob": None, **empty}
    assert call(home, "decode", "run", "--ensemble", "other", "--alignments", "json", stdin="a\n") == 2
    assert "alignments need a single model with attention to the source" in capsys.readouterr().err


def test_the_sample_of_least_risk(home):
    """The chosen sample is the most similar to all samples. A list has no duplicates."""
    run = loading.load(home / "run")
    options = {"beam": 6, "max_length": 8, "sample": 3}
    (drawn,), (ranked,) = run.write(["one two"], 6, **options), run.write(["one two"], 6, risk="chrf", **options)
    assert sorted({one.text for one in drawn}) == sorted(one.text for one in ranked)
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)
    assert run.translate(["one two"], risk="chrf", **options) == [ranked[0].text]


def test_other_dtypes(home, whole):
    """bfloat16 is used, and its results are close to those of float32."""
    score = {
        dtype: loading.load(home / "run", dtype=dtype).write(["one two"], beam=1)[0][0].log_prob
        for dtype in ("float32", "bfloat16")
    }
    assert score["bfloat16"] == pytest.approx(score["float32"], rel=0.05)
    assert score["bfloat16"] != score["float32"]


def test_few_positions_at_once(home, whole):
    assert (
        call(home, "decode", "run", *OPTIONS, "--input", "in.txt", "--output", "few.txt", "--batch-tokens", "1") == 0
    )
    assert written(home, "few.txt") == whole


def test_lines_are_read_as_they_are_needed(home, whole, monkeypatch):
    """In an endless stream, at most one window of lines is read ahead of the output."""
    from seqlab.decoding import stream

    monkeypatch.setattr(stream, "WINDOW", 3)
    read = 0

    def endless():
        nonlocal read
        for line in itertools.cycle(LINES):
            read += 1
            yield line

    run = loading.load(home / "run")
    texts = decode_stream(run.trained, run.search_config(beam=3, max_length=8), LineStreams(endless()))
    for n, expected in zip(range(17), itertools.cycle(whole), strict=False):
        assert next(texts) == expected
        assert read <= n + 3


def test_every_option_has_an_example(capsys):
    """Each option occurs in an example of docs/guides/search.md."""
    call(Path(), "decode", "--help")
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
    options = {option for option in options if not option.startswith("--no-") or option == "--no-repeat"}
    text = (Path(__file__).parents[2] / "docs" / "guides" / "search.md").read_text(encoding="utf-8")
    examples = " ".join(re.findall(r"`seqlab decode ([^`]*)`", text))
    assert len(options) > 30
    assert {option for option in options if f"{option} " not in examples + " "} == set()
