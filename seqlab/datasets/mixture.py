"""A mixture of datasets with rates. An epoch has as many examples as all datasets together.

    data=Mixture(parts=(Multi30k(), DebianDescriptions("en-de")), rates=(0.3, 0.7))

Each part contributes the share given by its rate; it is read repeatedly, each time in a new order. Validation and
test splits are concatenated, and exist only if all parts have them.
"""

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from seqlab.system.errors import SeqlabError


@dataclass(frozen=True)
class Mixture:
    parts: tuple[Any, ...] = ()
    """Datasets with the same columns."""
    rates: tuple[float, ...] = ()
    """Relative shares of the training examples of an epoch; their sum need not be 1."""

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.parts) or any(rate <= 0 for rate in self.rates):
            raise SeqlabError(
                f"a mixture of {len(self.parts)} parts needs {len(self.parts)} positive rates, not {self.rates}"
            )

    def key(self) -> str:
        identity = repr([part.key() for part in self.parts])
        return f"mixture/{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def splits(self) -> dict[str, Iterator[dict[str, str]]]:
        if not self.parts:
            raise SeqlabError("a mixture must be defined in a config: Mixture(parts=(...), rates=(...))")
        parts = [part.splits() for part in self.parts]
        names = [name for name in parts[0] if all(name in part for part in parts)]
        return {
            name: itertools.chain(*(self._counted(number, name, part[name]) for number, part in enumerate(parts)))
            for name in names
        }

    def _counted(self, number: int, split: str, examples: Iterator[dict[str, str]]) -> Iterator[dict[str, str]]:
        for example in examples:
            if not self._columns:
                self._columns.extend(example)
            if list(example) != self._columns:
                columns, first_columns = (", ".join(map(repr, names)) for names in (example, self._columns))
                raise SeqlabError(
                    f"{self.parts[number].key()} has the columns {columns}, but the first part has {first_columns}"
                )
            self._sizes[split, number] += 1
            yield example
        if not self._sizes[split, number]:
            raise SeqlabError(f"{self.parts[number].key()}: no examples in {split}")

    @functools.cached_property
    def _columns(self) -> list[str]:
        return []

    @functools.cached_property
    def _sizes(self) -> Counter[tuple[str, int]]:
        return Counter()

    @property
    def part_sizes(self) -> dict[str, list[int]]:
        """The number of examples of each consecutive part, by split; available after the examples were read."""
        names = dict.fromkeys(split for split, _ in self._sizes)
        return {name: [self._sizes[name, number] for number in range(len(self.parts))] for name in names}

    @property
    def origin(self) -> dict[str, str]:
        return {
            f"{part.key()}: {name}": value
            for part in self.parts
            for name, value in getattr(part, "origin", {}).items()
        }


DATASET = Mixture
