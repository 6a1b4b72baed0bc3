"""CLDR words and patterns, from Babel, and the pieces of phrases that are formatted with them."""

import difflib
import pickle
import re
import unicodedata
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from babel import Locale, localedata
from babel.core import get_global, parse_locale
from babel.numbers import format_decimal, format_percent, get_currency_precision

from seqlab.system.errors import SeqlabError

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
BIDI_MARKS = dict.fromkeys((0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))

# Texts by plural category ("one", "few", "other", ...), or by position for list patterns ("2", "start", "end").
Forms = dict[str, str]


class Piece(NamedTuple):
    """The language-independent meaning of a piece: its kind, its word (the unit of held-out combinations) and its
    number.

    The number is a count (amount, relative, percent), hundredths (price), a day as in `date.toordinal` (date, day,
    month, quarter), a minute as in `date.toordinal` times 1440 (moment), or 0 for other kinds.
    """

    kind: str
    word: str
    number: int


@lru_cache(maxsize=64)
def cldr(identifier: str) -> dict[Any, Any]:
    """Returns the CLDR data of a locale and its parents except the root locale, whose words are codes and English.

    `babel.localedata.load` is not used: it merges in the data of the root, and readers modify its dictionaries.
    """
    language, *subtags = identifier.split("_")
    likely_script = parse_locale(get_global("likely_subtags").get(language, language))[2]
    if identifier in get_global("parent_exceptions"):
        parent = get_global("parent_exceptions")[identifier]
    elif not subtags or (len(subtags) == 1 and len(subtags[0]) == 4 and subtags[0] != likely_script):
        parent = None  # a language in another script inherits nothing from its usual script
    else:
        parent = "_".join([language, *subtags[:-1]])
    data = cldr(parent).copy() if parent else {}
    with open(localedata.resolve_locale_filename(identifier), "rb") as file:  # part of the installed Babel
        localedata.merge(data, pickle.load(file))
    return data


def value_at(data: Any, *path: Any) -> Any:
    """Returns the value at `path` in nested dictionaries, or an empty dictionary if it is missing."""
    for key in path:
        data = data.get(key, {})
    return data


def plural_forms(*layers: Forms) -> Forms:
    """Returns the merged layers; later ones take precedence. Empty if the fallback form "other" is missing."""
    merged = {category: form for layer in layers for category, form in layer.items()}
    return merged if "other" in merged else {}


def name_forms(code: str, name: Any, plurals: Forms) -> Forms:
    """Returns the forms of a name; empty if CLDR has no name or only repeats the code."""
    return plural_forms({"other": name} if name and name != code else {}, plurals)


def date_pattern(pattern: Any, fields: str) -> Forms:
    """Returns the pattern as forms; empty if it lacks a letter of a group in `fields` ("y ML": y, and M or L)."""
    text = str(pattern or "")
    return {"other": text} if text and all(re.search(f"[{field}]", text) for field in fields.split()) else {}


@lru_cache(maxsize=64)
def locale_forms(identifier: str) -> dict[str, Forms]:
    """Returns a locale's words and patterns by name ("country DE", "pattern and", ...); missing ones are empty."""
    data, root = cldr(identifier), cldr("root")
    months = value_at(data, "months", "format", "wide"), value_at(data, "months", "stand-alone", "wide")
    days = value_at(data, "days", "format", "wide"), value_at(data, "days", "stand-alone", "wide")
    quarters = value_at(data, "quarters", "format", "wide")
    periods = value_at(data, "day_periods", "format")
    periods = {**value_at(periods, "wide"), **value_at(periods, "abbreviated")}
    intervals = {**root["interval_formats"], **value_at(data, "interval_formats")}
    skeletons = {**root["datetime_skeletons"], **value_at(data, "datetime_skeletons")}
    time = str(value_at(data, "time_formats", "short") or "")
    if "B" in time or ("a" in time and not {"am", "pm"} <= periods.keys()):
        time = str(skeletons["Hm"])  # no words for AM and PM: use the 24-hour clock
    forms_by_name: dict[str, Forms] = {
        "pattern full date": date_pattern(value_at(data, "date_formats", "full"), "y ML d Ec"),
        "pattern long date": date_pattern(value_at(data, "date_formats", "long"), "y ML d"),
        "pattern month": date_pattern(skeletons["yMMMM"], "y ML"),
        "pattern quarter": date_pattern(skeletons["yQQQQ"], "y Q"),
        "pattern time": date_pattern(time, "hK a m" if "a" in time else "H m"),
        "pattern date and time": date_pattern(value_at(data, "datetime_formats", "full"), "0 1"),
        "pattern range": {"other": intervals[None]},
        "pattern price": plural_forms(root["currency_unit_patterns"], value_at(data, "currency_unit_patterns")),
    }
    if "G" in "".join(forms.get("other", "") for forms in forms_by_name.values()):
        forms_by_name["era"] = name_forms("", value_at(data, "eras", "abbreviated", 1), {})
    for style, key in (("and", "standard"), ("or", "or")):  # the root has commas for "and" but English for "or"
        list_patterns = value_at(data, "list_patterns", key)
        complete = style == "and" or {"2", "end"} <= list_patterns.keys()
        forms_by_name[f"pattern {style}"] = {**root["list_patterns"][key], **list_patterns} if complete else {}
    if "a" in time:
        forms_by_name |= {f"period {half}": name_forms("", periods[half], {}) for half in ("am", "pm")}
    for number in range(1, 13):
        forms_by_name[f"month {number}"] = name_forms("", months[0].get(number), {})
        forms_by_name[f"lone month {number}"] = name_forms("", {**months[0], **months[1]}.get(number), {})
    for number in range(7):
        forms_by_name[f"day {number}"] = name_forms("", days[0].get(number), {})
        forms_by_name[f"weekday {number}"] = name_forms("", {**days[0], **days[1]}.get(number), {})
    for number in range(1, 5):
        forms_by_name[f"quarter {number}"] = name_forms("", quarters.get(number), {})
    for kind, key, codes in (("country", "territories", COUNTRIES), ("language", "languages", LANGUAGES)):
        forms_by_name |= {f"{kind} {code}": name_forms(code, value_at(data, key).get(code), {}) for code in codes}
    for code in CURRENCIES:
        name, plurals = value_at(data, "currency_names").get(code), value_at(data, "currency_names_plural", code)
        forms_by_name[f"price {code}"] = name_forms(code, name, plurals)
    for unit in UNITS:  # CLDR omits a long form that equals the short form
        short, long = value_at(data, "unit_patterns", unit, "short"), value_at(data, "unit_patterns", unit, "long")
        forms_by_name[f"amount {unit}"] = plural_forms(short, long)
    for word in RELATIVE:
        forms_by_name[f"relative {word}"] = plural_forms(value_at(data, "date_fields", *word.split()))
    return forms_by_name


def lacking(identifier: str) -> list[str]:
    """Returns the names of the words and patterns that the locale lacks. The phrases need all of them."""
    return [name for name, forms in locale_forms(identifier).items() if not forms]


def clean(text: str) -> str:
    """Returns the text in NFC, without bidirectional marks, with all white space replaced by single spaces."""
    return unicodedata.normalize("NFC", " ".join(text.translate(BIDI_MARKS).split()))


@lru_cache(maxsize=64)
def babel_locale(identifier: str) -> Locale:
    return Locale.parse(identifier)


@lru_cache(maxsize=65536)
def format_number(number: int, decimals: int, identifier: str) -> tuple[str, str]:
    """Returns `number` hundredths, rounded to `decimals` places and formatted for the locale, and the plural
    category.
    """
    locale = babel_locale(identifier)
    value = Decimal(number).scaleb(-2).quantize(Decimal(1).scaleb(-decimals))
    pattern = locale.decimal_formats[None].pattern.replace(".###", "." + "0" * decimals if decimals else "")
    return format_decimal(value, pattern, locale), locale.plural_form(value)


def format_fields(pattern: str, identifier: str, day: date, minute: int = 0) -> str:
    """Formats a CLDR date or time pattern; quoted text is copied. Raises `SeqlabError` for a field that the phrases
    do not use.
    """
    words, hour, quarter = locale_forms(identifier), minute // 60, (day.month + 2) // 3
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
    """Returns the piece as text in a locale."""
    words = locale_forms(identifier)
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
    patterns = locale_forms(identifier)[f"pattern {style}"]
    if style == "range":
        return patterns["other"].format(*texts)
    if len(texts) == 2:
        return patterns["2"].format(*texts)
    first, second, third = texts
    return patterns["end"].format(patterns["start"].format(first, second), third)


def check_locale(identifier: str) -> None:
    """Raises `SeqlabError` if the locale is unknown (suggesting similar names) or lacks words (listing the first
    few).
    """
    identifiers = sorted(localedata.locale_identifiers())
    if identifier not in identifiers:
        near = difflib.get_close_matches(identifier, identifiers, n=3, cutoff=0.5)
        raise SeqlabError(f"unknown locale {identifier!r}" + (f": did you mean {' or '.join(near)}?" if near else ""))
    if lacks := lacking(identifier):
        examples = ", ".join(lacks[:8]) + (", ..." if len(lacks) > 8 else "")
        raise SeqlabError(f"the CLDR data of {identifier!r} lacks {len(lacks)} words or patterns: {examples}")
