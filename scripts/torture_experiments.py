"""The tiny experiments that `scripts/torture.py` trains, and their synthetic documents."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

from seqlab import catalogue
from seqlab.config import Batching, Checkpoints, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.adding_problem import AddingProblem
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.datasets.copy_memory import CopyMemory
from seqlab.datasets.local_files import LocalFiles
from seqlab.layers.nesting import readers_of, with_fields
from seqlab.tasks.classification import Classification
from seqlab.tasks.dialogue import Dialogue
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.tasks.regression import Regression
from seqlab.tasks.tagging import Tagging
from seqlab.tasks.translation import Translation

STEPS = 24


def experiment_of(name: str, documents: str) -> Experiment:
    """Returns a tiny experiment for a model, with about three epochs and a checkpoint every six steps.

    `documents` is a folder that `write_documents` has written.
    """
    model = catalogue.module("models", name).TINY
    model = with_fields(catalogue.without_sizes(model), dropout=0.2)
    counts = {"train": 120, "validation": 16, "test": 6}
    phrases = CldrPhrases(**counts)
    texts = LocalFiles(f"{documents}/train.jsonl", f"{documents}/validation.jsonl", source="document", label="topic")
    generation = Translation() if readers_of(model) else LanguageModeling()
    pairs = (
        (generation, phrases),
        (Classification(), texts),
        (Tagging(), CopyMemory(8, **counts)),
        (Regression(features=2), AddingProblem(12, **counts)),
    )
    task, data = next((task, data) for task, data in pairs if isinstance(model, task.model))
    experiment = Experiment(
        model=model,
        task=task,
        data=data,
        steps=STEPS,
        log_every=5,
        hash_every=1,
        text=Text("bpe", 400),
        batching=Batching(tokens=1200, buckets=2, max_length=200),
        schedule=Schedule(peak=1e-2, warmup=2),
        validation=Validation(every=6, examples=16),
        checkpoints=Checkpoints(last=2),
    )
    averaged = Optimizer(average=0.9)
    early_stop = dataclasses.replace(experiment.validation, metric="exact_match", patience=2)  # the metric stays 0
    dialogue = dataclasses.replace(texts, label="", target="reply")
    changes: dict[str, dict[str, Any]] = {
        "bahdanau": {"optimizer": averaged},
        "conv_seq2seq": {"accumulate": 2},
        "hierarchical_seq2seq": {"task": Dialogue(), "data": dialogue},
        "classifier_head": {"accumulate": 2, "optimizer": averaged},
        "recurrent_lm": {"task": LanguageModeling("stream"), "batching": Batching(tokens=128, max_length=16)},
        "sutskever": {"nonfinite": "skip"},
        "tcn_lm": {"task": LanguageModeling("packed"), "batching": Batching(tokens=1024, max_length=128)},
        "transformer": {"validation": early_stop},
        "transformer_lm": {"accumulate": 2, "optimizer": averaged},
    }
    return dataclasses.replace(experiment, **changes.get(name, {}))


def write_documents(folder: Path) -> None:
    """Writes synthetic texts of a few sentences, with their topics and replies."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    words = ["".join(rng.choice(("ka", "lo", "mi", "ne", "su", "ta")) for _ in range(3)) for _ in range(80)]

    def sentence() -> str:
        return " ".join(rng.choices(words, k=rng.randint(3, 6))) + "."

    for split, count in (("train", 120), ("validation", 16)):
        lines = [
            {
                "document": "\n".join(sentence() for _ in range(rng.randint(1, 4))),
                "topic": rng.choice("abc"),
                "reply": sentence(),
            }
            for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
