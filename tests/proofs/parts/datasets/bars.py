"""Synthetic images of a bright bar, each in two examples."""

from dataclasses import dataclass

import numpy as np

from seqlab.data.records import generate_splits


@dataclass(frozen=True)
class Bars:
    train: int = 200
    validation: int = 16
    test: int = 16
    seed: int = 0

    def key(self):
        return f"bars-{self.train}-{self.validation}-{self.test}-{self.seed}"

    def splits(self):
        return generate_splits(self)

    def examples(self, rng, count):
        for i in range(count):
            if i % 2 == 0:
                upright, place = rng.integers(2), rng.integers(1, 7)
                image = np.zeros((8, 8), np.uint8)
                image[(slice(None), place) if upright else place] = 255
            where = ("left" if place < 4 else "right") if upright else ("top" if place < 4 else "bottom")
            yield {"source": image.tobytes(), "target": f"a bar at the {where}"}


DATASET = Bars
