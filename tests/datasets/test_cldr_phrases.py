"""Phrases generated from CLDR data."""

import os
import re
import subprocess
import sys
import unicodedata
from random import Random

import pytest
from babel import localedata
from hypothesis import given, settings
from hypothesis import strategies as st

from seqlab.data import cldr
from seqlab.data.cldr import Piece, format_piece, join
from seqlab.datasets import cldr_phrases
from seqlab.datasets.cldr_phrases import TEMPLATES, TINY, CldrPhrases, draw, held_out_template, is_held_out

LOCALES = [name for name in sorted(localedata.locale_identifiers()) if not cldr.lacking(name)]


def rows(data: CldrPhrases) -> dict[str, list[tuple[str, str]]]:
    return {split: [(row["source"], row["target"]) for row in rows] for split, rows in data.splits().items()}


def test_sizes_and_fields():
    assert {split: len(phrases) for split, phrases in rows(TINY).items()} == {
        "train": TINY.train,
        "validation": TINY.validation,
        "test": TINY.test,
    }
    assert rows(TINY) == rows(TINY) != rows(CldrPhrases(train=200, validation=20, test=20, seed=1))


def test_training_is_lazy():
    assert next(CldrPhrases(train=9_000_000, validation=1, test=1).splits()["train"]).keys() == {
        "source",
        "target",
    }


def test_same_in_every_process():
    code = (
        "from seqlab.datasets.cldr_phrases import TINY; import zlib;"
        "print(zlib.crc32(repr({k: list(v) for k, v in TINY.splits().items()}).encode()))"
    )
    # Reading other locales first must not change anything: Babel shares data between locales.
    other_program = "from babel import Locale; Locale('zh').months['stand-alone']['wide'];"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", before + code],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            check=True,
        ).stdout
        for seed, zone, before in (("1", "Asia/Tokyo", ""), ("2", "America/New_York", other_program))
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("pair", ["en-de", "ja-pl", "en-de,de-en,fr-de"])
def test_splits_are_disjoint_and_sources_have_one_target(pair: str):
    splits = rows(CldrPhrases(pair, train=3000, validation=200, test=200))
    sources = [source for phrases in splits.values() for source, _ in phrases]
    assert len(sources) == len(set(sources))
    targets = {split: {target for _, target in phrases} for split, phrases in splits.items()}
    assert not targets["test"] & targets["validation"]
    assert not targets["train"] & (targets["test"] | targets["validation"])


def test_held_out_words_are_only_in_test_and_all_words_in_training(monkeypatch: pytest.MonkeyPatch):
    made = {}

    def recording_draw(rng: Random) -> tuple[tuple[str, ...], list[Piece]]:
        template, pieces = draw(rng)
        made[join(template[0], [format_piece(piece, "en") for piece in pieces], "en")] = template, pieces
        return template, pieces

    monkeypatch.setattr(cldr_phrases, "draw", recording_draw)
    monkeypatch.setattr(cldr_phrases, "clean", str)  # so that the recorded texts are those of the phrases
    splits = rows(CldrPhrases(train=5000, validation=200, test=300))
    uses = {split: [made[source] for source, _ in phrases] for split, phrases in splits.items()}
    assert all(is_held_out(*use) for use in uses["test"])
    assert not any(is_held_out(*use) for use in uses["train"] + uses["validation"])
    words = {
        split: {(piece.kind, piece.word) for _, pieces in used for piece in pieces} for split, used in uses.items()
    }
    assert words["test"] <= words["train"]
    for kind, count in {"country": cldr.COUNTRIES, "language": cldr.LANGUAGES,
                        "price": cldr.CURRENCIES, "amount": cldr.UNITS,
                        "relative": cldr.RELATIVE, "weekday": "0123456"}.items():  # fmt: skip
        assert {word for used, word in words["train"] if used == kind} == set(count)


def test_every_word_keeps_two_templates_in_training():
    for kind in {kind for template in TEMPLATES for kind in template[1:]}:
        assert sum(kind in template[1:] for template in TEMPLATES) >= 3
    assert held_out_template("country", "DE") == held_out_template("country", "DE")
    assert held_out_template("percent", "") is None


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_no_leftovers_in_any_locale(data: st.DataObject):
    source, target = data.draw(st.lists(st.sampled_from(LOCALES), min_size=2, max_size=2, unique=True))
    for phrases in rows(CldrPhrases(f"{source}-{target}", train=40, validation=5, test=5)).values():
        for text in (text for pair in phrases for text in pair):
            assert not re.search(r"[{}¤_]|(duration|length|mass|area|volume)-|\b[A-Z]{3}\b \d|None|\bM\d\d\b", text)
            assert text == unicodedata.normalize("NFC", text) == " ".join(text.split())
            assert all(letter == " " or unicodedata.category(letter) not in ("Zs", "Cc") for letter in text)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(LOCALES), st.integers(0, 287))
def test_times_of_day_differ(locale: str, slot: int):
    day = 1440 * cldr.FIRST_DAY
    texts = {
        format_piece(Piece("moment", "1", day + 5 * opposite), locale) for opposite in (slot, (slot + 144) % 288)
    }
    assert len(texts) == 2


def test_many_locales():
    assert len(LOCALES) > 250
    assert len({locale.split("_")[0] for locale in LOCALES}) > 80
    assert {"de", "fr", "es", "ja", "ar", "pl", "hi", "pt_BR", "zh_Hant", "sr_Latn"} <= set(LOCALES)
    assert "root" not in LOCALES


@pytest.mark.parametrize(
    ("locale", "kind", "word", "number", "text"),
    [
        ("de", "amount", "duration-hour", 1, "1 Stunde"),
        ("de", "amount", "duration-hour", 2, "2 Stunden"),
        ("de", "relative", "week past", 2, "vor 2 Wochen"),
        ("en", "relative", "hour future", 3, "in 3 hours"),
        ("en", "price", "USD", 1250, "12.50 US dollars"),
        ("en", "price", "JPY", 100, "1 Japanese yen"),
        ("de", "price", "EUR", 125050, "1.250,50 Euro"),
        ("pl", "amount", "duration-hour", 1, "1 godzina"),
        ("pl", "amount", "duration-hour", 3, "3 godziny"),
        ("pl", "amount", "duration-hour", 12, "12 godzin"),
        ("pl", "amount", "duration-hour", 22, "22 godziny"),
        ("ru", "amount", "duration-day", 21, "21 день"),
        ("ru", "amount", "duration-day", 5, "5 дней"),
        ("ar", "relative", "hour future", 2, "خلال ساعتين"),
        ("de", "country", "AT", 0, "Österreich"),
        ("de", "weekday", "2", 0, "Mittwoch"),
        ("de", "percent", "", 25, "25\xa0%"),
        ("de", "day", "3", 738951, "Mittwoch, 6. März 2024"),
        ("en", "date", "3", 738951, "March 6, 2024"),
        ("en", "moment", "3", 738951 * 1440 + 785, "Wednesday, March 6, 2024, 1:05\u202fPM"),
        ("en", "moment", "3", 738951 * 1440, "Wednesday, March 6, 2024, 12:00\u202fAM"),
        ("de", "moment", "3", 738951 * 1440 + 785, "Mittwoch, 6. März 2024, 13:05"),
        ("pl", "date", "3", 738951, "6 marca 2024"),
        ("pl", "month", "3", 738946, "marzec 2024"),
        ("de", "quarter", "3", 738946, "1. Quartal 2024"),
        ("ja", "day", "3", 738951, "2024年3月6日水曜日"),
    ],
)
def test_known_translations(locale: str, kind: str, word: str, number: int, text: str):
    assert format_piece(Piece(kind, word, number), locale) == text


def test_lists():
    assert join("and", ["A", "B", "C"], "en") == "A, B, and C"
    assert join("or", ["A", "B", "C"], "de") == "A, B oder C"
    assert join("and", ["A", "B"], "fr") == "A et B"


def test_several_pairs_are_tagged_in_turn():
    phrases = rows(CldrPhrases("en-de,en-pt_PT", train=10, validation=2, test=2))
    for split in phrases.values():
        assert [source.split()[0] for source, _ in split] == ["<2de>", "<2pt_PT>"] * (len(split) // 2)
    assert not any(source.startswith("<") for source, _ in rows(TINY)["train"])


@pytest.mark.parametrize("pair", ["en", "en-", "-de", "", "en-de-fr", "de-de", "en-de,", "en-de,en-de"])
def test_malformed_pair(pair: str):
    with pytest.raises(ValueError, match="pair must be SOURCE-TARGET with two languages"):
        CldrPhrases(pair)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("en-xx", "unknown locale 'xx'"),
        ("en-pt_BQ", "unknown locale 'pt_BQ': did you mean .*pt_BR"),
        ("root-de", "unknown locale 'root'"),
        ("en-zu", "'zu' lacks .*amount area-hectare"),
        ("yo-en", "'yo' lacks"),
    ],
)
def test_unusable_locale(pair: str, message: str):
    with pytest.raises(ValueError, match=message):
        CldrPhrases(pair)


@pytest.mark.parametrize("sizes", [(-1, 1, 1), (1, -1, 1), (10**12, 1, 1)])
def test_sizes_out_of_range(sizes: tuple[int, int, int]):
    with pytest.raises(ValueError, match="sizes must be"):
        CldrPhrases("en-de", *sizes)


def test_more_phrases_than_there_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cldr_phrases, "TEMPLATES", (("and", "weekday", "weekday"),))
    monkeypatch.setattr(cldr_phrases, "held_out_template", lambda kind, word: None)
    data = CldrPhrases(train=100, validation=0, test=0)
    with pytest.raises(ValueError, match="only 42 train phrases, fewer than 100: lower data.train"):
        list(data.splits()["train"])
