"""Any set of TensorFlow Datasets, by name: tfds/imdb_reviews, tfds/lm1b, ...

    seqlab prepare tfds/imdb_reviews --source text --label label

A set whose builder needs TensorFlow, such as wmt14_translate/de-en or cnn_dailymail, is prepared once with the extra
`tfds-tf` installed; training and decoding do not need it. A set that is prepared already, as array_record, is read
from its folder.
"""

import difflib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import plain_files, read_json

CHUNK = 1000


@dataclass(frozen=True)
class Tfds:
    name: str = ""
    """The set, with its config behind a slash: imdb_reviews, wmt14_translate/de-en."""
    folder: str = ""
    """The folder of a version that is prepared already as array_record, in place of building."""
    source: str = ""
    """The feature that is the source; empty: there is none."""
    target: str = ""
    """The feature that is the target; empty: there is none."""
    label: str = ""
    """The feature that is the class; empty: there is none."""
    validation: str = "validation"
    """The split to validate with; a slice such as train[:2%] is then left out of training."""
    test: str = "test"
    """The split to test with, which is no part of train; empty: none."""

    def key(self) -> str:
        columns = repr((self.name, self.folder, self.columns, self.validation, self.test))
        return f"tfds/{(self.name or 'folder').replace('/', '-')}-{hashlib.sha256(columns.encode()).hexdigest()[:8]}"

    @property
    def columns(self) -> dict[str, str]:
        names_by_field = {field: getattr(self, field) for field in ("source", "target", "label")}
        columns = {field: name for field, name in names_by_field.items() if name}
        if not columns:
            raise SeqlabError("say which features to take: --source, --target, --label")
        return columns

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        columns = self.columns
        if self.test.startswith("train"):
            raise SeqlabError(f"test {self.test}: what is tested with must not be trained on; leave test empty")
        builder = self._builder()
        features = builder.info.features
        for feature in columns.values():
            if feature not in features:
                raise SeqlabError(f"{self.name or self.folder} has no feature {feature!r}: {', '.join(features)}")
        split_names = {"train": "train", "validation": self.validation, "test": self.test}
        if self.validation.startswith("train["):
            split_names["train"] = _complement(self.validation)
        splits = {}
        for split, name in split_names.items():
            if not name:
                continue
            try:
                splits[split] = self._examples(builder.as_data_source(name), features)
            except (ValueError, KeyError) as error:
                split_list, reason = ", ".join(builder.info.splits), str(error).partition("\n")[0]
                raise SeqlabError(
                    f"{self.folder or self.name}: no split {name!r} ({split_list}); set --{split}: {reason}"
                ) from None
        return splits

    def _builder(self) -> Any:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.registered import DatasetNotFoundError

        if self.folder:
            if not (Path(self.folder) / "dataset_info.json").is_file():
                raise SeqlabError(f"{self.folder} is no prepared set: it has no dataset_info.json")
            all(plain_files(Path(self.folder)))
            check_features(Path(self.folder) / "features.json")
            try:
                return tfds.builder_from_directory(self.folder)
            except Exception as error:  # whatever TFDS makes of a folder that is none of its own
                reason = str(error).partition("\n")[0]
                raise SeqlabError(f"{self.folder}: no prepared set that could be read: {reason}") from None
        if not self.name:
            raise SeqlabError("say which set: tfds/imdb_reviews, for instance")
        if not re.fullmatch(r"\w+(/[\w+.-]+)?(:[\d.*]+)?", self.name):  # TFDS would fetch other people's code
            raise SeqlabError(f"tfds/{self.name}: the name of a set, and behind a slash that of its config")
        try:
            builder = tfds.builder(self.name, file_format="array_record")
            builder.download_and_prepare()
        except (ImportError, DatasetNotFoundError) as error:
            raise SeqlabError(_reason(self.name.split("/")[0], error)) from None
        except OSError as error:
            raise SeqlabError(f"{self.name} could not be fetched: {error}") from None
        return builder

    def _examples(self, source: Any, features: Any) -> Iterator[dict[str, str]]:
        at, columns = 0, self.columns.items()
        while True:
            try:
                read = source.__getitems__(range(at, min(at + CHUNK, len(source))))
                examples = [
                    {column: _text(record[feature], features[feature]) for column, feature in columns}
                    for record in read
                ]
            except SeqlabError:
                raise
            except Exception as error:  # whatever becomes of damaged records
                raise SeqlabError(
                    f"{self.folder or self.name}: damaged: {str(error).partition(chr(10))[0]}"
                ) from None
            if not examples:
                return
            yield from examples
            at += CHUNK


def check_features(path: Path) -> None:
    """Raises for features that name a class outside TFDS, which would import it."""

    def classes(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            yield from (value[name] for name in ("pythonClassName", "python_class_name", "type") if name in value)
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from classes(child)

    for name in classes(read_json(path, dict[str, Any])):
        if not str(name).startswith("tensorflow_datasets."):
            raise SeqlabError(f"{path}: {name!r} is no feature of TensorFlow Datasets")


def _reason(name: str, error: Exception) -> str:
    """Why a set cannot be built. TFDS calls one that asks for TensorFlow unknown; its checksums give it away."""
    import tensorflow_datasets as tfds

    package = Path(tfds.__file__).parent
    old = {path.stem for path in (package / "url_checksums").glob("*.txt")}
    if isinstance(error, ImportError) or name in old:
        return (
            f"tfds/{name} cannot be built without TensorFlow: `pip install seqlab[tfds-tf]`, which `seqlab prepare` "
            "alone needs, and run it again; or give the --folder of a version prepared as array_record"
        )
    new = {path.name for path in (package / "datasets").iterdir()}
    near = difflib.get_close_matches(name, sorted(old | new), n=1)
    return f"TensorFlow Datasets knows no {name!r}" + (f": did you mean {near[0]!r}?" if near else "")


def _complement(part: str) -> str:
    """The rest of train for a slice at its beginning or end: train[:2%] -> train[2%:]."""
    begin, _, end = part.removeprefix("train[").removesuffix("]").partition(":")
    if bool(begin) == bool(end):
        raise SeqlabError(f"{part}: a slice that leaves a rest is train[:N%] or train[N%:]")
    return f"train[{end}:]" if end else f"train[:{begin}]"


def _text(value: Any, feature: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise SeqlabError(f"an example is not UTF-8: {error}") from None
    return feature.int2str(int(value)) if hasattr(feature, "int2str") else str(value)


DATASET = Tfds
