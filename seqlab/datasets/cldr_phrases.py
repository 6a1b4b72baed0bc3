"""Everyday phrases in parallel languages, generated from the Unicode CLDR data that Babel ships.

A phrase joins two or three *pieces* (an amount, a price, a date, a country, ...) by a list or interval pattern. The
same pieces are written in both languages: "3 hours or 12.50 euros" / "3 Stunden oder 12,50 Euro". All words and
patterns come from CLDR (https://cldr.unicode.org), so any locale that has all of them works.

Splits. A SHA-256 hash selects, for each word (a country, a unit, a month, ...), one of the templates that can use it;
the word is held out from this template. Training and validation phrases contain no held-out combination, and every
test phrase contains at least one. The word occurs in training in the other templates, so that a model can produce
test phrases by composition but not by lookup.

Text. Text is in NFC. Runs of white space become one space. Bidirectional marks, which only affect display, are
removed; joiners and zero-width spaces (U+200B to U+200D), which are part of the spelling, are preserved. All locales
use Latin digits and the Gregorian calendar.

Babel's date formatting is not used: Babel resolves the aliases of one locale inside data that is shared between
locales, so its month names depend on the locales that the process used before (in Babel 2.18).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from random import Random

from seqlab.data.cldr import (
    COUNTRIES,
    CURRENCIES,
    FIRST_DAY,
    LANGUAGES,
    LAST_DAY,
    RELATIVE,
    UNITS,
    Piece,
    check_locale,
    clean,
    format_piece,
    join,
)
from seqlab.system.errors import SeqlabError

# The pattern that joins the pieces (an "and" or "or" list, or a "range"), and the kinds of the two or three pieces.
TEMPLATES = tuple(
    tuple(template.split())
    for template in (
        "and country country country", "or country country", "and country language",
        "and country country date", "or country price", "and country amount relative", "and moment country",
        "and weekday country", "and language language language", "or language language",
        "and language month", "and language percent day", "or language amount", "and moment language",
        "and amount amount", "or amount amount relative", "and amount price date",
        "and amount percent month", "or price price", "and price relative percent", "and price day",
        "or price quarter amount", "range date date",
        "range day day", "range month month", "range quarter quarter", "or moment moment",
        "and moment amount price", "and weekday weekday relative", "or weekday weekday percent",
        "or relative relative", "and quarter percent price",
    )
)  # fmt: skip

MAX_PHRASES = 10_000_000  # all phrases are stored in memory, about 500 bytes each

MAX_DRAWS = 10_000  # number of draws without a new phrase after which generation stops


def draw_number(rng: Random) -> int:
    """Returns a random count from 1 to 3000. Small counts, on which plural forms depend, are most frequent."""
    return rng.choice((rng.randint(1, 5), rng.randint(1, 99), 50 * rng.randint(2, 60)))


def draw_piece(kind: str, rng: Random) -> Piece:
    """Returns a random piece of a kind."""
    match kind:
        case "country" | "language" | "weekday":
            choices = {"country": COUNTRIES, "language": LANGUAGES, "weekday": "0123456"}[kind]
            return Piece(kind, rng.choice(choices), 0)
        case "amount" | "relative":
            number = draw_number(rng) if kind == "amount" else rng.randint(1, 59)
            return Piece(kind, rng.choice(UNITS if kind == "amount" else RELATIVE), number)
        case "price":
            return Piece(kind, rng.choice(CURRENCIES), 100 * draw_number(rng) + rng.choice((0, 0, 50, 99)))
        case "percent":
            return Piece(kind, "", rng.randint(1, 100))
    day = date.fromordinal(rng.randint(FIRST_DAY, LAST_DAY))
    match kind:
        case "month":
            day = day.replace(day=1)
        case "quarter":
            day = day.replace(month=(day.month + 2) // 3 * 3, day=1)
        case "moment":
            return Piece(kind, str(day.month), 1440 * day.toordinal() + 5 * rng.randrange(288))
    return Piece(kind, str(day.month), day.toordinal())


def draw(rng: Random) -> tuple[tuple[str, ...], list[Piece]]:
    """Returns a random template and pieces for it; the pieces of a range are in order."""
    template = rng.choice(TEMPLATES)
    pieces = [draw_piece(kind, rng) for kind in template[1:]]
    return template, sorted(pieces, key=lambda piece: piece.number) if template[0] == "range" else pieces


@lru_cache(maxsize=4096)
def held_out_template(kind: str, word: str) -> tuple[str, ...] | None:
    """Returns the template in which this word occurs only in test phrases; None for a kind without words."""
    candidates = [template for template in TEMPLATES if kind in template[1:]]
    digest = hashlib.sha256(f"{kind} {word}".encode()).digest()
    return candidates[int.from_bytes(digest[:8], "big") % len(candidates)] if word else None


def is_held_out(template: tuple[str, ...], pieces: list[Piece]) -> bool:
    """Returns whether a word is held out from this template, so that the phrase belongs to the test split."""
    return any(held_out_template(piece.kind, piece.word) == template for piece in pieces)


def parse_pairs(pair: str) -> list[tuple[str, str]]:
    """Parses "<source>-<target>,..." to [(source, target), ...]. Raises `SeqlabError` if malformed or if a pair
    repeats.
    """
    pairs = []
    for name in pair.split(","):
        source, _, target = name.partition("-")
        if not source or not target or "-" in target or source == target or (source, target) in pairs:
            raise SeqlabError(
                "pair must be SOURCE-TARGET with two languages, such as 'en-de', or distinct pairs, such as "
                f"'en-de,en-fr', not {pair!r}"
            )
        pairs.append((source, target))
    return pairs


@dataclass(frozen=True)
class CldrPhrases:
    """Phrases in one or more language pairs. The same settings produce the same phrases on every machine.

    Within a language pair, every source phrase, and every phrase that it is built from, has exactly one translation.
    No source or target occurs in more than one split. With several pairs, the pairs alternate, and each source starts
    with a tag for its target locale: "<2de> 3 hours or 5 days".

    Raises:
        SeqlabError: malformed pair, unknown or incomplete locale, or sizes out of range.
    """

    pair: str = "en-de"
    """"<source>-<target>" with CLDR locale identifiers, or several pairs separated by commas ("en-de,en-pt_PT")."""
    train: int = 60_000
    """Number of training phrases, in all pairs together."""
    validation: int = 1_000
    """Number of validation phrases."""
    test: int = 1_000
    """Number of test phrases."""
    seed: int = 0
    """Random seed. The combinations of words and patterns reserved for the test split do not depend on it."""

    def __post_init__(self) -> None:
        sizes = self.train, self.validation, self.test
        if min(sizes) < 0 or sum(sizes) > MAX_PHRASES:
            raise SeqlabError(f"the sizes must be at least 0, and at most {MAX_PHRASES:,} in total, not {sizes}")
        for identifier in sorted({identifier for pair in parse_pairs(self.pair) for identifier in pair}):
            check_locale(identifier)

    def key(self) -> str:
        """Includes the version of Babel, since its release of CLDR determines the phrases."""
        sizes = f"{self.train}-{self.validation}-{self.test}-{self.seed}"
        return f"cldr_phrases/{self.pair}-{sizes}-babel{version('babel')}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        """Returns iterators of {"source": text, "target": text} for "train", "validation" and "test".

        Test and validation phrases are generated immediately, training phrases on demand. Raises `SeqlabError` if
        there are too few distinct phrases.
        """
        meanings: dict[tuple[str, str, str], str] = {}
        sources: set[str] = set()
        test = list(self._phrases("test", self.test, meanings, sources, frozenset()))
        taken = frozenset(phrase["target"] for phrase in test)
        validation = list(self._phrases("validation", self.validation, meanings, sources, taken))
        taken |= {phrase["target"] for phrase in validation}
        train = self._phrases("train", self.train, meanings, sources, taken)
        return {"train": train, "validation": iter(validation), "test": iter(test)}

    def _phrases(
        self,
        split: str,
        size: int,
        meanings: dict[tuple[str, str, str], str],
        sources: set[str],
        taken: frozenset[str],
    ) -> Iterator[dict[str, str]]:
        """Yields `size` phrases with new sources and without `taken` targets; adds to `sources` and `meanings`."""
        rng = Random(f"{self.pair} {self.seed} {split}")
        pairs = parse_pairs(self.pair)
        for index in range(size):
            pair = pairs[index % len(pairs)]
            for _ in range(MAX_DRAWS):
                template, pieces = draw(rng)
                if len(set(pieces)) < len(pieces) or is_held_out(template, pieces) != (split == "test"):
                    continue
                texts = [[clean(format_piece(piece, locale)) for piece in pieces] for locale in pair]
                # A text with two meanings, such as one name of two currencies, keeps its first translation.
                translations = zip(*texts, strict=True)
                if any(meanings.setdefault((*pair, text), target) != target for text, target in translations):
                    continue
                source, target = (clean(join(template[0], *side)) for side in zip(texts, pair, strict=True))
                tagged = f"<2{pair[1]}> {source}" if len(pairs) > 1 else source
                if tagged not in sources and target not in taken:
                    sources.add(tagged)
                    yield {"source": tagged, "target": target}
                    break
            else:
                raise SeqlabError(
                    f"{self.pair!r} has only {index} {split} phrases, fewer than {size}: lower data.{split}"
                )


DATASET = CldrPhrases

TINY = CldrPhrases(train=200, validation=20, test=20)
