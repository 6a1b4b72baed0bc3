"""Any dataset of TensorFlow Datasets, by name: tfds/imdb_reviews, tfds/lm1b, ...

    seqlab prepare tfds/imdb_reviews --source text --label label

Datasets whose builder needs TensorFlow, such as wmt14_translate/de-en or cnn_dailymail, must be prepared with the
extra `tfds-tf` installed; training and decoding do not need it. A dataset that is already prepared as array_record
is read from its folder.
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
    """Name of the dataset, optionally with a config after a slash: imdb_reviews, wmt14_translate/de-en."""
    folder: str = ""
    """Folder of a version that is already prepared as array_record, to read instead of building."""
    source: str = ""
    """Feature to use as the source; empty: none."""
    target: str = ""
    """Feature to use as the target; empty: none."""
    label: str = ""
    """Feature to use as the class; empty: none."""
    validation: str = "validation"
    """Validation split; a slice such as train[:2%] is excluded from training."""
    test: str = "test"
    """Test split, which must not be part of train; empty: none."""

    def key(self) -> str:
        columns = repr((self.name, self.folder, self.columns, self.validation, self.test))
        return f"tfds/{(self.name or 'folder').replace('/', '-')}-{hashlib.sha256(columns.encode()).hexdigest()[:8]}"

    @property
    def columns(self) -> dict[str, str]:
        names_by_field = {field: getattr(self, field) for field in ("source", "target", "label")}
        columns = {field: name for field, name in names_by_field.items() if name}
        if not columns:
            raise SeqlabError("choose features with --source, --target, --label")
        return columns

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        columns = self.columns
        if self.test.startswith("train"):
            raise SeqlabError(
                f"test {self.test!r}: the test split must not be part of the training data; leave test empty"
            )
        builder = self._builder()
        features = builder.info.features
        for feature in columns.values():
            if feature not in features:
                raise SeqlabError(
                    f"{self.name or self.folder} has no feature {feature!r}, only {', '.join(features)}"
                )
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
                raise SeqlabError(f"{self.folder} is not a prepared dataset: it has no dataset_info.json")
            all(plain_files(Path(self.folder)))
            check_features(Path(self.folder) / "features.json")
            try:
                return tfds.builder_from_directory(self.folder)
            except Exception as error:  # TFDS raises any kind of error for an invalid folder
                reason = str(error).partition("\n")[0]
                raise SeqlabError(f"{self.folder}: cannot be read as a prepared dataset: {reason}") from None
        if not self.name:
            raise SeqlabError("choose a dataset by name, for example tfds/imdb_reviews")
        if not re.fullmatch(r"\w+(/[\w+.-]+)?(:[\d.*]+)?", self.name):  # TFDS would download third-party code
            raise SeqlabError(f"tfds/{self.name}: expected the name of a dataset, optionally followed by /CONFIG")
        try:
            builder = tfds.builder(self.name, file_format="array_record")
            builder.download_and_prepare()
        except (ImportError, DatasetNotFoundError) as error:
            raise SeqlabError(_reason(self.name.split("/")[0], error)) from None
        except OSError as error:
            raise SeqlabError(f"{self.name} cannot be downloaded: {error}") from None
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
            except Exception as error:  # damaged records raise any kind of error
                raise SeqlabError(
                    f"{self.folder or self.name}: damaged: {str(error).partition(chr(10))[0]}"
                ) from None
            if not examples:
                return
            yield from examples
            at += CHUNK


def check_features(path: Path) -> None:
    """Raises `SeqlabError` for features that name a class outside TFDS, since TFDS would import it."""

    def classes(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            yield from (value[name] for name in ("pythonClassName", "python_class_name", "type") if name in value)
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from classes(child)

    for name in classes(read_json(path, dict[str, Any])):
        if not str(name).startswith("tensorflow_datasets."):
            raise SeqlabError(f"{path}: {name!r} is not a feature of TensorFlow Datasets")


def _reason(name: str, error: Exception) -> str:
    """Returns the reason why a dataset cannot be built. TFDS reports datasets that need TensorFlow as unknown; they
    are recognized by their checksum files.
    """
    import tensorflow_datasets as tfds

    package = Path(tfds.__file__).parent
    old = {path.stem for path in (package / "url_checksums").glob("*.txt")}
    if isinstance(error, ImportError) or name in old:
        return (
            f"preparing tfds/{name} requires TensorFlow: run `pip install 'seqlab[tfds-tf]'` (training does not need "
            "it), or pass --folder with a copy that is already prepared as array_record"
        )
    new = {path.name for path in (package / "datasets").iterdir()}
    near = difflib.get_close_matches(name, sorted(old | new), n=1)
    return f"TensorFlow Datasets has no dataset {name!r}" + (f": did you mean {near[0]!r}?" if near else "")


def _complement(part: str) -> str:
    """Returns the complement of a slice at the beginning or end of train: train[:2%] -> train[2%:]."""
    begin, _, end = part.removeprefix("train[").removesuffix("]").partition(":")
    if bool(begin) == bool(end):
        raise SeqlabError(f"{part} would split the training data in two: use train[:N%] or train[N%:]")
    return f"train[{end}:]" if end else f"train[:{begin}]"


def _text(value: Any, feature: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise SeqlabError(f"an example is not UTF-8: {error}") from None
    return feature.int2str(int(value)) if hasattr(feature, "int2str") else str(value)


DATASET = Tfds
