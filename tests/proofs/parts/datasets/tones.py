"""Synthetic speech: each symbol is a tone of a few frames, with noise, between silent frames."""

from dataclasses import dataclass

import numpy as np

from seqlab.data.records import generate_splits


@dataclass(frozen=True)
class Tones:
    train: int = 200
    validation: int = 16
    test: int = 16
    seed: int = 0
    features: int = 4

    def key(self):
        return f"tones-{self.train}-{self.validation}-{self.test}-{self.seed}-{self.features}"

    def splits(self):
        return generate_splits(self)

    def examples(self, rng, count):
        for _ in range(count):
            symbols = rng.integers(self.features, size=rng.integers(1, 4))
            frames = [np.zeros((2, self.features))]
            for symbol in symbols:
                tone = np.tile(np.eye(self.features)[symbol], (rng.integers(2, 5), 1))
                frames += [tone, np.zeros((2, self.features))]
            values = np.concatenate(frames)
            values += rng.normal(scale=0.1, size=values.shape)
            target = " ".join("abcd"[symbol] for symbol in symbols)
            yield {"source": " ".join(f"{x:.3f}" for x in values.flat), "target": target}


DATASET = Tones
