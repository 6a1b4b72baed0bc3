"""Everyday phrases in parallel languages, generated from the Unicode CLDR data that Babel ships.

A phrase joins two or three *pieces* (an amount, a price, a date, a country, ...) by a list or interval
pattern, and the same pieces are written in both languages: "3 hours or 12.50 euros" / "3 Stunden oder 12,50
Euro". All words and patterns are CLDR's (https://cldr.unicode.org), none is written here, so any locale of
`locales()` works.

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

import difflib
import hashlib
import pickle
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from random import Random
from typing import Any, NamedTuple

from babel import Locale, localedata
from babel.core import get_global, parse_locale
from babel.numbers import format_decimal, format_percent, get_currency_precision

from seqlab.errors import SeqlabError

COUNTRIES = (
    "AE AF AL AM AR AT AU AZ BA BD BE BG BH BO BR BY CA CH CI CL CM CN CO CR CU CY CZ DE DK DO DZ EC EE EG ES "
    "ET FI FJ FR GB GE GH GR GT HN HR HT HU ID IE IL IN IQ IR IS IT JM JO JP KE KH KR KW KZ LA LB LK LT LU LV "
    "LY MA MC MD ME MG MN MT MX MY MZ NA NE NG NI NL NO NP NZ OM PA PE PH PK PL PT PY QA RO RS RU RW SA SD SE "
    "SG SI SK SN SV SY TH TN TR TZ UA UG US UY UZ VE VN YE ZA ZM ZW"
).split()
LANGUAGES = (
    "ar az be bg bn bs ca cs cy da de el en es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka kk km kn "
    "ko ky lo lt lv mk ml mn mr ms my ne nl pa pl ps pt ro ru si sk sl sq sr sv ta te th tr uk ur uz vi zh"
).split()
CURRENCIES = (
    "AED ARS AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW KZT MAD "
    "MXN MYR NGN NOK NZD PEN PHP PKR PLN RON RUB SAR SEK SGD THB TRY TWD UAH USD VND ZAR"
).split()
UNITS = (
    "area-hectare area-square-kilometer area-square-meter duration-century duration-day duration-hour "
    "duration-minute duration-month duration-second duration-week duration-year electric-volt "
    "length-centimeter length-foot length-inch length-kilometer length-meter length-mile length-millimeter "
    "length-yard mass-gram mass-kilogram mass-ounce mass-pound mass-tonne power-kilowatt power-watt "
    "speed-kilometer-per-hour speed-meter-per-second speed-mile-per-hour temperature-celsius "
    "temperature-fahrenheit volume-cubic-meter volume-cup volume-gallon volume-liter volume-milliliter "
    "volume-tablespoon"
).split()
FIELDS = "year month week day hour minute second".split()
RELATIVE = [f"{field} {side}" for field in FIELDS for side in ("past", "future")]
FIRST_DAY, LAST_DAY = date(1990, 1, 1).toordinal(), date(2029, 12, 31).toordinal()

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
BIDI_MARKS = dict.fromkeys((0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))

# Texts by plural category ("one", "few", "other", ...) or, of list patterns, by place ("2", "start", "end").
Forms = dict[str, str]


class Piece(NamedTuple):
    """What a piece means, in no language: its kind, its word (that which is held out) and its number.

    The number is a count (amount, relative, percent), hundredths (price), a day in `date.toordinal`'s count
    (date, day, month, quarter), a minute of such days (moment: 1440 to a day), or 0 where there is none.
    """

    kind: str
    word: str
    number: int


@lru_cache(maxsize=64)
def cldr(identifier: str) -> dict[Any, Any]:
    """CLDR data of a locale and its parents, without the root locale's, whose words are codes and English.

    `babel.localedata.load` merges the root's data in, and its dictionaries are changed by whoever reads them.
    """
    language, *rest = identifier.split("_")
    likely_script = parse_locale(get_global("likely_subtags").get(language, language))[2]
    if identifier in get_global("parent_exceptions"):
        parent = get_global("parent_exceptions")[identifier]
    elif not rest or (len(rest) == 1 and len(rest[0]) == 4 and rest[0] != likely_script):
        parent = None  # a language written in another script inherits nothing from its usual one
    else:
        parent = "_".join([language, *rest[:-1]])
    data = cldr(parent).copy() if parent else {}
    with open(localedata.resolve_locale_filename(identifier), "rb") as file:  # part of the installed Babel
        localedata.merge(data, pickle.load(file))
    return data


def at(data: Any, *path: Any) -> Any:
    """The value at `path` of nested dictionaries, an empty dictionary where there is none."""
    for key in path:
        data = data.get(key, {})
    return data


def plural_forms(*layers: Forms) -> Forms:
    """The layers laid over each other; empty if none has the form "other", which stands in for others."""
    merged = {category: form for layer in layers for category, form in layer.items()}
    return merged if "other" in merged else {}


def name_forms(code: str, name: Any, plurals: Forms) -> Forms:
    """Forms of a name, empty if CLDR has none or only repeats the code."""
    return plural_forms({"other": name} if name and name != code else {}, plurals)


def date_pattern(pattern: Any, fields: str) -> Forms:
    """The pattern as forms, empty unless it has a letter of each group in `fields` ("y ML": y, M or L)."""
    text = str(pattern or "")
    return {"other": text} if text and all(re.search(f"[{field}]", text) for field in fields.split()) else {}


@lru_cache(maxsize=64)
def vocabulary(identifier: str) -> dict[str, Forms]:
    """A locale's words and patterns by name ("country DE", "pattern and", ...), empty where it lacks one."""
    data, root = cldr(identifier), cldr("root")
    months = at(data, "months", "format", "wide"), at(data, "months", "stand-alone", "wide")
    days = at(data, "days", "format", "wide"), at(data, "days", "stand-alone", "wide")
    quarters = at(data, "quarters", "format", "wide")
    periods = at(data, "day_periods", "format")
    periods = {**at(periods, "wide"), **at(periods, "abbreviated")}
    intervals = {**root["interval_formats"], **at(data, "interval_formats")}
    skeletons = {**root["datetime_skeletons"], **at(data, "datetime_skeletons")}
    time = str(at(data, "time_formats", "short") or "")
    if "B" in time or ("a" in time and not {"am", "pm"} <= periods.keys()):
        time = str(skeletons["Hm"])  # no words for AM and PM alone: 24 hours
    found: dict[str, Forms] = {
        "pattern full date": date_pattern(at(data, "date_formats", "full"), "y ML d Ec"),
        "pattern long date": date_pattern(at(data, "date_formats", "long"), "y ML d"),
        "pattern month": date_pattern(skeletons["yMMMM"], "y ML"),
        "pattern quarter": date_pattern(skeletons["yQQQQ"], "y Q"),
        "pattern time": date_pattern(time, "hK a m" if "a" in time else "H m"),
        "pattern date and time": date_pattern(at(data, "datetime_formats", "full"), "0 1"),
        "pattern range": {"other": intervals[None]},
        "pattern price": plural_forms(root["currency_unit_patterns"], at(data, "currency_unit_patterns")),
    }
    if "G" in "".join(forms.get("other", "") for forms in found.values()):
        found["era"] = name_forms("", at(data, "eras", "abbreviated", 1), {})
    for style, key in (("and", "standard"), ("or", "or")):  # the root has commas for "and", English for "or"
        own = at(data, "list_patterns", key)
        complete = style == "and" or {"2", "end"} <= own.keys()
        found[f"pattern {style}"] = {**root["list_patterns"][key], **own} if complete else {}
    if "a" in time:
        found |= {f"period {half}": name_forms("", periods[half], {}) for half in ("am", "pm")}
    for number in range(1, 13):
        found[f"month {number}"] = name_forms("", months[0].get(number), {})
        found[f"lone month {number}"] = name_forms("", {**months[0], **months[1]}.get(number), {})
    for number in range(7):
        found[f"day {number}"] = name_forms("", days[0].get(number), {})
        found[f"weekday {number}"] = name_forms("", {**days[0], **days[1]}.get(number), {})
    for number in range(1, 5):
        found[f"quarter {number}"] = name_forms("", quarters.get(number), {})
    for kind, key, codes in (("country", "territories", COUNTRIES), ("language", "languages", LANGUAGES)):
        found |= {f"{kind} {code}": name_forms(code, at(data, key).get(code), {}) for code in codes}
    for code in CURRENCIES:
        name, plurals = at(data, "currency_names").get(code), at(data, "currency_names_plural", code)
        found[f"price {code}"] = name_forms(code, name, plurals)
    for unit in UNITS:  # CLDR leaves a long form out where it is the short one
        short, long = at(data, "unit_patterns", unit, "short"), at(data, "unit_patterns", unit, "long")
        found[f"amount {unit}"] = plural_forms(short, long)
    for word in RELATIVE:
        found[f"relative {word}"] = plural_forms(at(data, "date_fields", *word.split()))
    return found


def lacking(identifier: str) -> list[str]:
    """Names of the words and patterns that the locale lacks; the phrases need them all."""
    return [name for name, forms in vocabulary(identifier).items() if not forms]


@lru_cache(maxsize=1)
def locales() -> list[str]:
    """Identifiers of the locales that have every word and pattern, sorted; a few seconds the first time."""
    return [identifier for identifier in sorted(localedata.locale_identifiers()) if not lacking(identifier)]


def clean(text: str) -> str:
    """The text in NFC, without bidirectional marks, and with single plain spaces as its only white space."""
    return unicodedata.normalize("NFC", " ".join(text.translate(BIDI_MARKS).split()))


@lru_cache(maxsize=64)
def babel_locale(identifier: str) -> Locale:
    return Locale.parse(identifier)


@lru_cache(maxsize=65536)
def format_number(number: int, decimals: int, identifier: str) -> tuple[str, str]:
    """`number` hundredths rounded to `decimals` places as the locale writes them, and the plural category."""
    locale = babel_locale(identifier)
    value = Decimal(number).scaleb(-2).quantize(Decimal(1).scaleb(-decimals))
    pattern = locale.decimal_formats[None].pattern.replace(".###", "." + "0" * decimals if decimals else "")
    return format_decimal(value, pattern, locale), locale.plural_form(value)


def format_fields(pattern: str, identifier: str, day: date, minute: int = 0) -> str:
    """Writes a CLDR date or time pattern; quoted text in it stays as it is.

    Raises:
        SeqlabError: the pattern has a field that the phrases do not use.
    """
    words, hour, quarter = vocabulary(identifier), minute // 60, (day.month + 2) // 3
    names = {
        "M": f"month {day.month}", "L": f"lone month {day.month}", "Q": f"quarter {quarter}",
        "E": f"day {day.weekday()}", "c": f"weekday {day.weekday()}",
    }  # fmt: skip
    numbers = {
        "M": day.month, "L": day.month, "d": day.day, "Q": quarter,
        "H": hour, "h": (hour - 1) % 12 + 1, "K": hour % 12, "m": minute % 60,
    }  # fmt: skip

    def write(match: re.Match[str]) -> str:
        field = match[0]
        match field[0]:
            case "'":
                return field[1:-1] or "'"
            case "y":
                return str(day.year)
            case "M" | "L" | "E" | "c" | "Q" if len(field) == 4:
                return words[names[field[0]]]["other"]
            case "a":
                return words["period am" if hour < 12 else "period pm"]["other"]
            case "G":
                return words["era"]["other"]
        if field[0] not in numbers or len(field) > 2:
            raise SeqlabError(f"date pattern {pattern!r} of {identifier} has the unknown field {field!r}")
        return str(numbers[field[0]]).zfill(len(field))

    return re.sub(r"'[^']*'|([A-Za-z])\1*", write, pattern)


@lru_cache(maxsize=65536)
def format_piece(piece: Piece, identifier: str) -> str:
    """The piece in the words of a locale."""
    words = vocabulary(identifier)
    kind, word, number = piece
    match kind:
        case "country" | "language" | "weekday":
            return words[f"{kind} {word}"]["other"]
        case "amount" | "relative":
            forms = words[f"{kind} {word}"]
            digits, category = format_number(100 * number, 0, identifier)
            return forms.get(category, forms["other"]).format(digits)
        case "price":
            digits, category = format_number(number, get_currency_precision(word), identifier)
            names, patterns = words[f"price {word}"], words["pattern price"]
            name = names.get(category, names["other"])
            return patterns.get(category, patterns["other"]).format(digits, name)
        case "percent":
            return format_percent(Decimal(number) / 100, locale=babel_locale(identifier))
        case "moment":
            day, minute = divmod(number, 1440)
            full = format_piece(Piece("day", word, day), identifier)
            time = format_fields(words["pattern time"]["other"], identifier, date.fromordinal(day), minute)
            return words["pattern date and time"]["other"].replace("'", "").format(time, full)
    name = {"date": "long date", "day": "full date"}.get(kind, kind)
    return format_fields(words[f"pattern {name}"]["other"], identifier, date.fromordinal(number))


def join(style: str, texts: list[str], identifier: str) -> str:
    """Joins two or three texts by the locale's list pattern ("and", "or"), or two as a "range"."""
    patterns = vocabulary(identifier)[f"pattern {style}"]
    if style == "range":
        return patterns["other"].format(*texts)
    if len(texts) == 2:
        return patterns["2"].format(*texts)
    first, second, third = texts
    return patterns["end"].format(patterns["start"].format(first, second), third)


def draw_number(rng: Random) -> int:
    """A count from 1 to 3000; the smallest, on which plurals hinge, come most often."""
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


def check_locale(identifier: str) -> None:
    """Raises `SeqlabError` if the locale is unknown (with similar names) or lacks words (with the first few)."""
    known = sorted(localedata.locale_identifiers())
    if identifier not in known:
        near = difflib.get_close_matches(identifier, known, n=3, cutoff=0.5)
        raise SeqlabError(f"unknown locale {identifier!r}" + (f"; near: {', '.join(near)}" if near else ""))
    if lacks := lacking(identifier):
        shown = ", ".join(lacks[:8]) + (", ..." if len(lacks) > 8 else "")
        raise SeqlabError(f"the CLDR data of {identifier!r} lack {len(lacks)} words or patterns: {shown}")


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
