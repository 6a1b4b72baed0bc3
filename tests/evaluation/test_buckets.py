"""Bucket tables, compared with plain counting."""

import numpy as np
import pytest

from seqlab.evaluation.buckets import frequencies, repeats, tables
from seqlab.metrics.registry import count, score, score_lines

REFERENCES = ["a b", "a b c", "a b c d e f", "", "x y z", "a a a a a", "b c d e"]
SOURCES = ["A", "B c", "one two three", "q", "x", "seven", "d e"]
SYSTEMS = [
    ["a b", "a c c", "a b c d e g", "q", "", "a a", "b c d e b c d e b c d e b c d"],
    ["a", "c", "a b c", "", "x q z", "a a a a a a", "b c d e"],
]
TRAIN = ["a b b", "a c, c c", "a"]


@pytest.fixture(scope="module")
def tables_by_title():
    counted = [count("chrf", lines, [REFERENCES]) for lines in SYSTEMS]
    alone = [score_lines("chrf", lines, [REFERENCES])["chrF2"] for lines in SYSTEMS]
    all_tables = tables(SYSTEMS, REFERENCES, counted, alone, SOURCES, frequencies(TRAIN))
    return {table.title: table.rows for table in all_tables}


@pytest.mark.parametrize(("side", "lines"), [("source", SOURCES), ("reference", REFERENCES)])
def test_by_length(tables_by_title, side, lines):
    """Each line is in one bucket, and the score of a bucket is the corpus score of its lines."""
    rows = tables_by_title[f"chrF2 by words of the {side}"]
    assert sum(size for _, size, _ in rows) == len(lines)
    for label, size, values in rows:
        low, high = (int(part) for part in (label.split("-") * 2)[:2])
        indices = [i for i, line in enumerate(lines) if low <= len(line.split()) <= high]
        assert len(indices) == size
        for lines_of, value in zip(SYSTEMS, values, strict=True):
            expected = score("chrf", [lines_of[i] for i in indices], [[REFERENCES[i] for i in indices]])[0].value
            assert value == pytest.approx(expected)


def test_a_perfect_line_has_a_score_within_the_range():
    """Its sentence BLEU is slightly above 100, by rounding."""
    systems = [[*REFERENCES[:3], "q", *REFERENCES[4:]], SYSTEMS[0]]
    counted = [count("bleu", lines, [REFERENCES]) for lines in systems]
    alone = [score_lines("bleu", lines, [REFERENCES])["sentence BLEU"] for lines in systems]
    assert 100 < alone[0].max() < 100.001
    titles = {table.title: table.rows for table in tables(systems, REFERENCES, counted, alone)}
    rows = titles["lines by BLEU of the line, %"]
    assert [sum(shares[system] for _, _, shares in rows) for system in range(2)] == pytest.approx([100, 100])


def test_by_score(tables_by_title):
    rows = tables_by_title["lines by chrF2 of the line, %"]
    assert [label for label, _, _ in rows] == ["0-20", "20-40", "40-60", "60-80", "80-100"]
    for system, lines in enumerate(SYSTEMS):
        values = score_lines("chrf", lines, [REFERENCES])["chrF2"]
        shares = [row[2][system] for row in rows]
        assert sum(shares) == pytest.approx(100)
        assert shares[0] == pytest.approx(100 * np.mean(values < 20))
        assert shares[-1] == pytest.approx(100 * np.mean(values >= 80))


def test_by_frequency(tables_by_title):
    """Training has "a" and "c" three times, "b" twice, and no other word."""
    rows = {label: (size, values) for label, size, values in tables_by_title["F1 of words by frequency in training"]}
    assert set(rows) == {"0", "2-5"}
    wanted = sum(line.split().count(word) for line in REFERENCES for word in "abc")
    assert rows["2-5"][0] == wanted
    written = sum(line.split().count(word) for line in SYSTEMS[1] for word in "abc")
    matched = sum(
        min(line.split().count(word), right.split().count(word))
        for line, right in zip(SYSTEMS[1], REFERENCES, strict=True)
        for word in "abc"
    )
    assert rows["2-5"][1][1] == pytest.approx(200 * matched / (wanted + written))


def test_kinds(tables_by_title):
    rows = {label: values for label, _, values in tables_by_title["kinds of lines and words, %"]}
    lengths = [sum(len(line.split()) for line in lines) for lines in (*SYSTEMS, REFERENCES)]
    assert rows["length relative to the reference"] == pytest.approx([100 * n / lengths[-1] for n in lengths])
    assert rows["empty lines"] == pytest.approx([100 / 7] * 3)
    assert rows["lines over twice the reference plus 5 words"] == pytest.approx([100 / 7, 0, 0])
    assert rows["lines that repeat 4 words"] == pytest.approx([100 / 7] * 3)  # "b c d e ..." and "a" five times
    given = [source.lower().split() for source in SOURCES]
    copied = [
        sum(word in source for line, source in zip(lines, given, strict=True) for word in line.split())
        for lines in (*SYSTEMS, REFERENCES)
    ]
    assert rows["words that are in the source"] == pytest.approx(
        [100 * n / total for n, total in zip(copied, lengths, strict=True)]
    )
    unseen = [sum(word not in "abc" for line in lines for word in line.split()) for lines in (*SYSTEMS, REFERENCES)]
    assert rows["words unseen in training"] == pytest.approx(
        [100 * n / total for n, total in zip(unseen, lengths, strict=True)]
    )


def test_repetitions():
    assert repeats("a b c d e a b c d".split())
    assert not repeats("a b c d e a b c".split())
    assert not repeats([])
