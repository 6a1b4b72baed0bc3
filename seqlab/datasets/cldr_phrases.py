"""Everyday phrases in parallel languages, generated from the Unicode CLDR data that Babel ships.

A phrase joins two or three *pieces* (an amount, a price, a date, a country, ...) by a list or interval
pattern, and the same pieces are written in both languages: "3 hours or 12.50 euros" / "3 Stunden oder 12,50
Euro". All words and patterns are CLDR's (https://cldr.unicode.org), none is written here, so any locale that
has them all works.

Splits. Each word (a country, a unit, a month, ...) is held out, by a SHA-256 hash, from one of the
templates that could use it. Training and validation phrases contain no held-out combination, every test
phrase contains at least one; all the other templates show the word in training, so that test phrases can be
composed but not looked up.

Text. NFC; every run of white space is one plain space; bidirectional marks, which only steer display, are
removed, while joiners and zero-width spaces (U+200B to U+200D), which are spelling, stay. Digits are Latin
and the calendar Gregorian in all locales.

Babel's own date formatting is not used: Babel resolves the aliases of one locale inside data shared with
others, so that its month names depend on which locales the process used before (seen in Babel 2.18).
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

# How the pieces are joined (an "and" or "or" list, a "range"), and the kinds of the two or three pieces.
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

MAX_PHRASES = 10_000_000  # every phrase made is remembered, some 500 bytes each

MAX_DRAWS = 10_000  # draws without a new phrase after which there are no more


def draw_number(rng: Random) -> int:
    """A count from 1 to 3000; the smallest, on which plurals depend, come most often."""
    return rng.choice((rng.randint(1, 5), rng.randint(1, 99), 50 * rng.randint(2, 60)))


def draw_piece(kind: str, rng: Random) -> Piece:
    """A random piece of a kind."""
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
    """A random template and pieces for it; those of a range are in order."""
    template = rng.choice(TEMPLATES)
    pieces = [draw_piece(kind, rng) for kind in template[1:]]
    return template, sorted(pieces, key=lambda piece: piece.number) if template[0] == "range" else pieces


@lru_cache(maxsize=4096)
def held_out_template(kind: str, word: str) -> tuple[str, ...] | None:
    """The one template in which this word occurs in test phrases only; None for a kind without words."""
    candidates = [template for template in TEMPLATES if kind in template[1:]]
    digest = hashlib.sha256(f"{kind} {word}".encode()).digest()
    return candidates[int.from_bytes(digest[:8], "big") % len(candidates)] if word else None


def is_held_out(template: tuple[str, ...], pieces: list[Piece]) -> bool:
    """Whether a word is held out from this template, so that the phrase belongs to the test split."""
    return any(held_out_template(piece.kind, piece.word) == template for piece in pieces)


def parse_pairs(pair: str) -> list[tuple[str, str]]:
    """[(source, target), ...] of "<source>-<target>,..."; `SeqlabError` if malformed or a pair comes twice."""
    pairs = []
    for name in pair.split(","):
        source, _, target = name.partition("-")
        if not source or not target or "-" in target or source == target or (source, target) in pairs:
            raise SeqlabError(f"pair must be like 'en-de' or 'en-de,en-fr', each pair once; got {pair!r}")
        pairs.append((source, target))
    return pairs


@dataclass(frozen=True)
class CldrPhrases:
    """Phrases of one or several pairs of languages, the same for the same fields on every machine.

    Within a pair a source phrase has one target, and so has each of its pieces. No source and no target is in
    two splits, and all sources are distinct. With several pairs, which take turns, each source begins with a
    tag of its target locale: "<2de> 3 hours or 5 days".

    Attributes:
        pair: "<source>-<target>" by CLDR locale identifiers, several separated by commas ("en-de,en-pt_PT").
        train, validation, test: phrases of each split, of all pairs together.
        seed: of the random draws; which combinations are held out does not depend on it.

    Raises:
        SeqlabError: malformed pair, a locale that is unknown or lacks words, or sizes out of range.
    """

    pair: str = "en-de"
    train: int = 60_000
    validation: int = 1_000
    test: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = self.train, self.validation, self.test
        if min(sizes) < 0 or sum(sizes) > MAX_PHRASES:
            raise SeqlabError(f"sizes must be at least 0 and at most {MAX_PHRASES} in all, not {sizes}")
        for identifier in sorted({identifier for pair in parse_pairs(self.pair) for identifier in pair}):
            check_locale(identifier)

    def key(self) -> str:
        """Another release of Babel brings another release of CLDR, and so other phrases."""
        sizes = f"{self.train}-{self.validation}-{self.test}-{self.seed}"
        return f"cldr_phrases/{self.pair}-{sizes}-babel{version('babel')}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        """{"train", "validation", "test"}: iterators of {"source": text, "target": text}.

        Test and validation phrases are made at once, training phrases as they are asked for.

        Raises:
            SeqlabError: there are fewer distinct phrases than asked for.
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
        """`size` phrases of new sources and no `taken` target; adds to `sources` and to `meanings`."""
        rng = Random(f"{self.pair} {self.seed} {split}")
        pairs = parse_pairs(self.pair)
        for index in range(size):
            pair = pairs[index % len(pairs)]
            for _ in range(MAX_DRAWS):
                template, pieces = draw(rng)
                if len(set(pieces)) < len(pieces) or is_held_out(template, pieces) != (split == "test"):
                    continue
                texts = [[clean(format_piece(piece, locale)) for piece in pieces] for locale in pair]
                # A text with two meanings, such as one name of two currencies, keeps the one it had first.
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
                raise SeqlabError(f"{self.pair!r} has no more than {index} {split} phrases, {size} were asked for")


DATASET = CldrPhrases

TINY = CldrPhrases(train=200, validation=20, test=20)
