"""Where systems differ: scores by the length of a line, words by how often training had them, and what goes wrong as
a kind: too short, too long, repeated, copied.

A word is what `metrics.rouge.words` finds, lower-cased.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from seqlab.metrics.metric import Counted
from seqlab.metrics.rouge import words

BUCKETS = 5  # of lines, by length: about as many lines in each
FREQUENCIES = (0, 1, 2, 6, 21, 101, 1001)  # where buckets of words begin: how often training had them
NGRAM = 4  # as many words in a row, twice in a line, are a repetition


class Table(NamedTuple):
    """Rows of a label, how many lines or words it has, and a value for each system (None where there is nothing)."""

    title: str
    counted: str
    rows: list[tuple[str, int, list[float | None]]]


def words_of(lines: Iterable[str]) -> list[list[str]]:
    return [[word.lower() for word in words(line)] for line in lines]


def frequencies(lines: Iterable[str]) -> Counter[str]:
    """How often each word stands in some lines, such as those of training."""
    return Counter(itertools.chain.from_iterable(words_of(lines)))


def tables(
    systems: Sequence[Sequence[str]],
    references: Sequence[str],
    counted: Sequence[Counted],
    alone: Sequence[np.ndarray],
    sources: Sequence[str] | None = None,
    seen: Mapping[str, int] | None = None,
) -> list[Table]:
    """All tables for some systems' texts: `counted` is what a metric counts in each, `alone` its scores of each line
    [lines]; `seen` says how often training had a word.
    """
    written, wanted = [words_of(lines) for lines in systems], words_of(references)
    name = next(iter(counted[0].values(counted[0].counts.sum(0))))
    found = []
    for what, lines in (("source", None if sources is None else words_of(sources)), ("reference", wanted)):
        if lines is not None:
            found.append(by_length(f"{name} by words of the {what}", np.array([*map(len, lines)]), counted))
    if len(np.unique(np.concatenate(alone))) > 2 and max(scores.max() for scores in alone) <= 100:
        found.append(histogram(f"lines by {name} of the line", alone))
    if seen is not None:
        found.append(by_frequency(written, wanted, seen))
    found.append(kinds(written, wanted, None if sources is None else words_of(sources), seen))
    return [table for table in found if table.rows]


def by_length(title: str, lengths: Int[np.ndarray, "lines"], counted: Sequence[Counted]) -> Table:
    """A corpus score of the lines of each range of lengths."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BUCKETS + 1)[1:-1], method="higher"))
    which = np.searchsorted(edges, lengths, side="left")  # an edge is the last of its range
    rows = []
    for bucket in np.unique(which):
        some = which == bucket
        values = [next(iter(one.values(one.counts[some].sum(0)).values())) for one in counted]
        low, high = lengths[some].min(), lengths[some].max()
        rows.append((f"{low}" if low == high else f"{low}-{high}", int(some.sum()), values))
    return Table(title, "lines", rows)


def histogram(title: str, alone: Sequence[np.ndarray]) -> Table:
    """How many lines, in percent, have scores in each fifth of 0 to 100."""
    edges = (0, 20, 40, 60, 80)
    which = [np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, len(edges) - 1) for scores in alone]
    rows = []
    for i, low in enumerate(edges):
        hits = [int((one == i).sum()) for one in which]
        rows.append(
            (f"{low}-{low + 20}", sum(hits), [100 * n / len(one) for n, one in zip(hits, which, strict=True)])
        )
    return Table(f"{title}, %", "of all systems", rows)


def by_frequency(
    systems: Sequence[Sequence[Sequence[str]]], references: Sequence[Sequence[str]], seen: Mapping[str, int]
) -> Table:
    """F1 of the words of each range of frequencies in training: of those written, and of those wanted."""

    def bucket(word: str) -> int:
        return int(np.searchsorted(FREQUENCIES, seen.get(word, 0), side="right")) - 1

    wanted = Counter(bucket(word) for line in references for word in line)
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
        if wanted[i]:
            high = FREQUENCIES[i + 1] - 1 if i + 1 < len(FREQUENCIES) else None
            label = f"{low}" if low == high else f"{low} and more" if high is None else f"{low}-{high}"
            values = [200 * m[i] / (w[i] + wanted[i]) for m, w in zip(matched, written, strict=True)]
            rows.append((label, wanted[i], values))
    return Table("F1 of words by how often training had them", "words wanted", rows)


def kinds(
    systems: Sequence[Sequence[Sequence[str]]],
    references: Sequence[Sequence[str]],
    sources: Sequence[Sequence[str]] | None,
    seen: Mapping[str, int] | None,
) -> Table:
    """Lengths, lines that are empty, far too long or repeat themselves, words that are copied or were never seen; in
    percent of lines, or of words. The references stand there as the last system.
    """
    everyone = [*systems, references]
    rows: list[Any] = []

    def of_lines(label: str, holds: Any) -> None:
        hits = [sum(holds(line, i) for i, line in enumerate(lines)) for lines in everyone]
        rows.append((label, sum(hits[:-1]), [100 * n / len(references) for n in hits]))

    def of_words(label: str, holds: Any) -> None:
        totals = [sum(map(len, lines)) for lines in everyone]
        hits = [sum(holds(word, i) for i, line in enumerate(lines) for word in line) for lines in everyone]
        rows.append((label, sum(hits[:-1]), [100 * n / t if t else None for n, t in zip(hits, totals, strict=True)]))

    total = sum(map(len, references))
    lengths = [sum(map(len, lines)) for lines in everyone]
    rows.append(
        ("length, of the reference's", sum(lengths[:-1]), [100 * n / total if total else None for n in lengths])
    )
    of_lines("empty lines", lambda line, i: not line)
    of_lines("lines over twice the reference and 5 words", lambda line, i: len(line) > 2 * len(references[i]) + 5)
    of_lines(f"lines that repeat {NGRAM} words", lambda line, i: repeats(line))
    if sources is not None:
        given = [*map(set, sources)]
        of_words("words that are in the source", lambda word, i: word in given[i])
    if seen is not None:
        of_words("words that training never had", lambda word, i: word not in seen)
    return Table("kinds of lines and words, %", "of all systems", rows)


def repeats(line: Sequence[str]) -> bool:
    """Whether an n-gram stands in it twice."""
    grams = [tuple(line[i : i + NGRAM]) for i in range(len(line) - NGRAM + 1)]
    return len(grams) > len({*grams})
