"""Debian package descriptions: translations by volunteers, one-line synopses, archive sections, plain text.

`en-de` and `en-fr`: synopses and paragraphs with their translations. `synopsis`: from the long description, one
sentence per line, to the synopsis. `section`: from the whole description, one sentence per line, to the section of
the archive. `text`: the whole description, one sentence per line, as source and as target, for pre-training: without
the packages in the validation and test splits of the other variants, and without any sentence that occurs there.

The text comes from the package indices of the system's Debian mirror. apt downloads them to a temporary folder,
without root privileges and without changing the system's apt state. Translations are matched by the checksum of the
description (https://wiki.debian.org/RepositoryFormat).
"""

import functools
import gzip
import hashlib
import lzma
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from seqlab.system.errors import SeqlabError
from seqlab.system.files import file_stamps
from seqlab.system.progress_bar import progress

LANGUAGES = {"en-de": ("en", "de"), "en-fr": ("en", "fr"), "synopsis": ("en",), "section": ("en",), "text": ("en",)}
HELD_OUT = 25  # of 1000 source packages, for each of validation and test
LARGEST_INDEX = 1 << 30  # bytes
APT_HELPER = "/usr/lib/apt/apt-helper"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")


class Index(NamedTuple):
    """An index file: its kind ("Packages", "Translation-de", ...), its name and its text."""

    kind: str
    name: str
    text: str


@dataclass(frozen=True)
class DebianDescriptions:
    variant: str = "en-de"
    """Variant of the data: en-de, en-fr, synopsis, section or text."""
    folder: str = ""
    """Folder of index files (*Packages*, *Translation-de*; plain, .gz or .xz) to read instead of downloading."""

    def __post_init__(self) -> None:
        if self.variant not in LANGUAGES:
            raise SeqlabError(
                f"debian_descriptions has no variant {self.variant!r}: the variants are {', '.join(LANGUAGES)}"
            )

    def key(self) -> str:
        if not self.folder:
            return f"debian_descriptions/{self.variant}"
        files = file_stamps((path.name, path) for path in sorted(self._paths()))
        return f"debian_descriptions/{self.variant}-{hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        return {name: iter(examples) for name, examples in self._loaded[0].items()}

    @property
    def origin(self) -> dict[str, str]:
        """The SHA-256 of the index files, and counts of examples."""
        return self._loaded[1]

    @functools.cached_property
    def _loaded(self) -> tuple[dict[str, list[dict[str, str]]], dict[str, str]]:
        languages = LANGUAGES[self.variant]
        indices = [_read(path) for path in self._paths()] if self.folder else _fetch(languages)
        for kind in ("Packages", *(f"Translation-{language}" for language in languages)):
            if not any(index.kind == kind for index in indices):
                raise SeqlabError(f"no index {kind} {f'in {self.folder}' if self.folder else 'on this mirror'}")
        origin = {f"sha256 of {x.name}": hashlib.sha256(x.text.encode()).hexdigest() for x in indices}
        packages = [entry for x in indices if x.kind == "Packages" for entry in _entries(x)]
        descriptions = {
            language: _descriptions([x for x in indices if x.kind == f"Translation-{language}"], language)
            for language in languages
        }
        owners: dict[str, str] = {}  # source package of each description, the first by name
        for entry in packages:
            source = (entry.get("Source") or entry["Package"]).split()[0]
            owners[entry["Description-md5"]] = min(source, owners.get(entry["Description-md5"], source))
        if self.variant == "section":
            sections = {entry["Description-md5"]: entry.get("Section", "").split("/")[-1] for entry in packages}
            described_examples = _sections(descriptions["en"], sections)
        elif self.variant == "synopsis":
            described_examples = _synopses(descriptions["en"])
        elif self.variant == "text":
            return _texts(descriptions["en"], owners), origin
        else:
            described_examples = _translations(descriptions["en"], descriptions[languages[1]])
        examples, dropped = _split((owners[md5], example) for md5, example in described_examples if md5 in owners)
        origin["examples left out, since one side is in another split"] = str(dropped)
        if self.variant == "synopsis":
            copied = sum(e["target"] in e["source"] for split in examples.values() for e in split)
            origin["examples whose synopsis occurs in the description"] = str(copied)
        return examples, origin

    def _paths(self) -> list[Path]:
        folder = Path(self.folder)
        if not folder.is_dir():
            raise SeqlabError(f"no folder {folder}")
        return sorted(p for p in folder.iterdir() if "Packages" in p.name or "Translation-" in p.name)


def _fetch(languages: tuple[str, ...]) -> list[Index]:
    """Downloads the indices of the mirrors in the system's sources.list, for the given languages."""
    if shutil.which("apt-get") is None:
        raise SeqlabError("apt-get is not installed: pass the index files of a Debian mirror with --folder")
    with tempfile.TemporaryDirectory() as folder, progress("fetching package indices", None):
        for part in ("state/lists/partial", "cache/archives/partial"):
            (Path(folder) / part).mkdir(parents=True)
        hooks = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success", "Post-Invoke-Stats")
        lines = [f"#clear APT::Update::{hook};" for hook in hooks]  # they modify the system
        language_list = " ".join(f'"{language}";' for language in languages)
        lines += ["#clear Acquire::Languages;", f"Acquire::Languages {{ {language_list} }};"]
        lines += [f'Dir::State "{folder}/state";', f'Dir::State::lists "{folder}/state/lists";']
        lines += [f'Dir::Cache "{folder}/cache";', 'APT::Sandbox::User "";', 'Acquire::Retries "3";']
        config = Path(folder) / "apt.conf"
        config.write_text("\n".join(lines) + "\n")
        _run(["apt-get", "update", "-qq", "-c", str(config)])
        fields = "$(IDENTIFIER)\t$(LANGUAGE)\t$(FILENAME)"
        targets = _run(["apt-get", "indextargets", "-c", str(config), "--format", fields]).decode()
        indices = []
        for identifier, language, name in (line.split("\t") for line in targets.splitlines()):
            kind = {"Packages": "Packages", "Translations": f"Translation-{language}"}.get(identifier)
            if kind is not None and Path(name).exists():
                text = _run([APT_HELPER, "cat-file", name])  # decompresses any format
                indices.append(Index(kind, re.sub(r"\.(lz4|gz|xz|zst)$", "", Path(name).name), text.decode()))
        return indices


def _run(command: list[str]) -> bytes:
    result = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise SeqlabError(f"{' '.join(command[:2])} failed: {reason[-1]}")
    return result.stdout


def _read(path: Path) -> Index:
    kind = re.search(r"Packages|Translation-[a-z]+", path.name)
    if kind is None:
        raise SeqlabError(f"{path}: neither a Packages nor a Translation-LANGUAGE index")
    try:
        opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)(path, "rb")
        with opened as stream:
            content = stream.read(LARGEST_INDEX + 1)
            if len(content) > LARGEST_INDEX:
                raise SeqlabError(f"{path}: more than {LARGEST_INDEX:,} bytes, so it is not an index of Debian")
            return Index(kind[0], path.name, content.decode())
    except UnicodeDecodeError as error:
        raise SeqlabError(f"{path}: cannot be read: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise SeqlabError(f"{path}: cannot be read: {error}") from None


def _entries(index: Index) -> Iterator[dict[str, str]]:
    """Yields the stanzas of an index, which are separated by empty lines. A field "Field: value" continues in lines
    that start with a blank.
    """
    entry: dict[str, str] = {}
    field = ""
    for number, line in enumerate([*index.text.split("\n"), ""], 1):
        if not line:
            if entry.get("Package") and "Description-md5" in entry:
                yield entry
            entry, field = {}, ""
        elif line[0] in " \t" and field:
            entry[field] += "\n" + line
        else:
            field, colon, value = line.partition(":")
            if not colon:
                raise SeqlabError(
                    f"{index.name}:{number}: expected 'Field: value' or an indented continuation line, "
                    f"found {line[:40]!r}"
                )
            entry[field] = value.strip()


class Description(NamedTuple):
    synopsis: str
    paragraphs: list[str]


def _descriptions(indices: list[Index], language: str) -> dict[str, Description]:
    """Returns the descriptions by checksum. A line with a single dot separates paragraphs; line breaks in a paragraph
    become blanks.
    """
    descriptions = {}
    for index in indices:
        for entry in _entries(index):
            synopsis, _, body = entry.get(f"Description-{language}", "").partition("\n")
            paragraphs = [" ".join(part.split()) for part in re.split(r"^ \.\s*$", body, flags=re.MULTILINE)]
            if synopsis:
                descriptions[entry["Description-md5"]] = Description(
                    " ".join(synopsis.split()), [p for p in paragraphs if p]
                )
    return descriptions


Described = Iterator[tuple[str, dict[str, str]]]  # checksum of a description, example


def _translations(english: dict[str, Description], translations: dict[str, Description]) -> Described:
    """Yields pairs of synopses, and pairs of paragraphs if both sides have the same number of them."""
    for md5, translated in translations.items():
        if md5 in english:
            yield md5, {"source": english[md5].synopsis, "target": translated.synopsis}
            if len(english[md5].paragraphs) == len(translated.paragraphs):
                for source, target in zip(english[md5].paragraphs, translated.paragraphs, strict=True):
                    yield md5, {"source": source, "target": target}


def _synopses(english: dict[str, Description]) -> Described:
    for md5, (synopsis, paragraphs) in english.items():
        if paragraphs:
            yield md5, {"source": _sentence_a_line(paragraphs), "target": synopsis}


def _sections(english: dict[str, Description], sections: dict[str, str]) -> Described:
    for md5, (synopsis, paragraphs) in english.items():
        if sections.get(md5):
            yield md5, {"source": _sentence_a_line([synopsis, *paragraphs]), "label": sections[md5]}


def _sentence_a_line(texts: list[str]) -> str:
    return "\n".join(_sentences(texts))


def _sentences(texts: list[str]) -> list[str]:
    return [sentence for text in texts for sentence in SENTENCE_END.split(text)]


def _texts(english: dict[str, Description], owners: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """Returns the distinct texts by split, without the sentences of packages that other variants hold out. Other
    packages are held out here.
    """
    sentences = {md5: _sentences([entry.synopsis, *entry.paragraphs]) for md5, entry in english.items()}
    owned = sorted((owners[md5], md5) for md5 in sentences if md5 in owners)
    excluded = {text for owner, md5 in owned if _place(owner) < 2 * HELD_OUT for text in sentences[md5]}
    split_of_text: dict[str, str] = {}
    for owner, md5 in owned:
        text = "\n".join(sentence for sentence in sentences[md5] if sentence not in excluded)
        if text:
            split_of_text.setdefault(text, _split_at(_place(owner) - 2 * HELD_OUT))
    return {
        split: [{"source": text, "target": text} for text in split_of_text if split_of_text[text] == split]
        for split in ("train", "validation", "test")
    }


def _place(owner: str) -> int:
    """Returns the place of a source package among 1000, which its name determines."""
    return int(hashlib.sha256(owner.encode()).hexdigest(), 16) % 1000


def _split_at(place: int) -> str:
    return "validation" if place < HELD_OUT else "test" if place < 2 * HELD_OUT else "train"


def _split(described: Iterator[tuple[str, dict[str, str]]]) -> tuple[dict[str, list[dict[str, str]]], int]:
    """Returns the distinct examples by split, and the number of examples left out, given (source package, example).

    A hash of its name assigns each source package to a split, so near-duplicates are in the same split. A text that
    occurs in packages of two splits stays in the split of the first package by name; examples that would repeat it in
    another split are left out.
    """
    examples: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    split_of_text: dict[tuple[str, str], str] = {}  # by text; labels do not count as texts
    seen = set()
    dropped = 0
    for owner, example in sorted(described, key=lambda x: (x[0], *x[1].values())):
        split = _split_at(_place(owner))
        texts = [item for item in example.items() if item[0] != "label"]
        if any(split_of_text.get(text, split) != split for text in texts):
            dropped += 1
        elif tuple(example.values()) not in seen:
            seen.add(tuple(example.values()))
            split_of_text.update(dict.fromkeys(texts, split))
            examples[split].append(example)
    return examples, dropped


DATASET = DebianDescriptions
