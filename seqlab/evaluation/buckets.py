"""Tables that show where systems differ: scores by the length of a line, words by their frequency in training, and
kinds of errors (too short, too long, repeated, copied).

A word is what `metrics.rouge.words` finds, lower-cased.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from seqlab.metrics.metric import LineCounts
from seqlab.metrics.rouge import words

BUCKETS = 5  # of lines by length, with about equal numbers of lines
FREQUENCIES = (0, 1, 2, 6, 21, 101, 1001)  # lower bounds of the buckets of words, by their count in the training data
NGRAM = 4  # words; an n-gram that occurs twice in a line is a repetition


class BucketTable(NamedTuple):
    """A table. A row is a label, its number of lines or words, and a value for each system (None: no value)."""

    title: str
    counted: str
    rows: list[tuple[str, int, list[float | None]]]


def words_of(lines: Iterable[str]) -> list[list[str]]:
    return [[word.lower() for word in words(line)] for line in lines]


def frequencies(lines: Iterable[str]) -> Counter[str]:
    """Counts the words of some lines, such as those of training."""
    return Counter(itertools.chain.from_iterable(words_of(lines)))


def tables(
    systems: Sequence[Sequence[str]],
    references: Sequence[str],
    line_counts: Sequence[LineCounts],
    line_scores: Sequence[np.ndarray],
    sources: Sequence[str] | None = None,
    seen: Mapping[str, int] | None = None,
) -> list[BucketTable]:
    """Returns all tables for the texts of some systems. `line_counts` are the counts of a metric in each system and
    `line_scores` its scores of each line [lines], none for a metric of a corpus; `seen` counts the words of training.
    """
    system_words, reference_words = [words_of(lines) for lines in systems], words_of(references)
    name = line_counts[0].scores()[0].name
    result = []
    for side, lines in (("source", None if sources is None else words_of(sources)), ("reference", reference_words)):
        if lines is not None:
            result.append(by_length(f"{name} by words of the {side}", np.array([*map(len, lines)]), line_counts))
    if (
        line_scores
        and len(np.unique(np.concatenate(line_scores))) > 2
        and max(scores.max() for scores in line_scores) <= 100 + 1e-9  # rounding
    ):
        result.append(histogram(f"lines by {name} of the line", line_scores))
    if seen is not None:
        result.append(by_frequency(system_words, reference_words, seen))
    result.append(kinds(system_words, reference_words, None if sources is None else words_of(sources), seen))
    return [table for table in result if table.rows]


def by_length(title: str, lengths: Int[np.ndarray, "lines"], line_counts: Sequence[LineCounts]) -> BucketTable:
    """Returns the corpus score of the lines in each range of lengths."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BUCKETS + 1)[1:-1], method="higher"))
    bucket_indices = np.searchsorted(edges, lengths, side="left")  # an edge is the last of its range
    rows = []
    for bucket in np.unique(bucket_indices):
        in_bucket = bucket_indices == bucket
        values = [next(iter(counts.values_of(counts.counts[in_bucket]).values())) for counts in line_counts]
        low, high = lengths[in_bucket].min(), lengths[in_bucket].max()
        rows.append((f"{low}" if low == high else f"{low}-{high}", int(in_bucket.sum()), values))
    return BucketTable(title, "lines", rows)


def histogram(title: str, line_scores: Sequence[np.ndarray]) -> BucketTable:
    """Returns the percentage of lines with scores in each fifth of 0 to 100."""
    edges = (0, 20, 40, 60, 80)
    fifths = [np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(edges) - 1) for scores in line_scores]
    rows = []
    for i, low in enumerate(edges):
        hits = [int((indices == i).sum()) for indices in fifths]
        rows.append(
            (
                f"{low}-{low + 20}",
                sum(hits),
                [100 * n / len(indices) for n, indices in zip(hits, fifths, strict=True)],
            )
        )
    return BucketTable(f"{title}, %", "of all systems", rows)


def by_frequency(
    systems: Sequence[Sequence[Sequence[str]]], references: Sequence[Sequence[str]], seen: Mapping[str, int]
) -> BucketTable:
    """Returns the F1 of the words in each range of frequencies in training, written words against the references'."""

    def bucket(word: str) -> int:
        return int(np.searchsorted(FREQUENCIES, seen.get(word, 0), side="right")) - 1

    expected = Counter(bucket(word) for line in references for word in line)
    written = [Counter(bucket(word) for line in lines for word in line) for lines in systems]
    matched = [
        Counter(
            bucket(word)
            for line, right in zip(lines, references, strict=True)
            for word in (Counter(line) & Counter(right)).elements()
        )
        for lines in systems
    ]
    rows = []
    for i, low in enumerate(FREQUENCIES):
        if expected[i]:
            high = FREQUENCIES[i + 1] - 1 if i + 1 < len(FREQUENCIES) else None
            label = f"{low}" if low == high else f"{low} and more" if high is None else f"{low}-{high}"
            values = [200 * m[i] / (w[i] + expected[i]) for m, w in zip(matched, written, strict=True)]
            rows.append((label, expected[i], values))
    return BucketTable("F1 of words by frequency in training", "reference words", rows)


def kinds(
    systems: Sequence[Sequence[Sequence[str]]],
    references: Sequence[Sequence[str]],
    sources: Sequence[Sequence[str]] | None,
    seen: Mapping[str, int] | None,
) -> BucketTable:
    """Returns lengths, lines that are empty, far too long or repetitive, and words that are copied or unseen, in
    percent of lines or of words. The references are the last system.
    """
    columns = [*systems, references]
    rows: list[Any] = []

    def of_lines(label: str, holds: Any) -> None:
        hits = [sum(holds(line, i) for i, line in enumerate(lines)) for lines in columns]
        rows.append((label, sum(hits[:-1]), [100 * n / len(references) for n in hits]))

    def of_words(label: str, holds: Any) -> None:
        totals = [sum(map(len, lines)) for lines in columns]
        hits = [sum(holds(word, i) for i, line in enumerate(lines) for word in line) for lines in columns]
        rows.append((label, sum(hits[:-1]), [100 * n / t if t else None for n, t in zip(hits, totals, strict=True)]))

    total = sum(map(len, references))
    lengths = [sum(map(len, lines)) for lines in columns]
    rows.append(
        ("length relative to the reference", sum(lengths[:-1]), [100 * n / total if total else None for n in lengths])
    )
    of_lines("empty lines", lambda line, i: not line)
    of_lines("lines over twice the reference plus 5 words", lambda line, i: len(line) > 2 * len(references[i]) + 5)
    of_lines(f"lines that repeat {NGRAM} words", lambda line, i: repeats(line))
    if sources is not None:
        source_words = [*map(set, sources)]
        of_words("words that are in the source", lambda word, i: word in source_words[i])
    if seen is not None:
        of_words("words unseen in training", lambda word, i: word not in seen)
    return BucketTable("kinds of lines and words, %", "of all systems", rows)


def repeats(line: Sequence[str]) -> bool:
    """Whether a line contains an n-gram twice."""
    grams = [tuple(line[i : i + NGRAM]) for i in range(len(line) - NGRAM + 1)]
    return len(grams) > len({*grams})
