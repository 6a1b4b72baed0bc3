"""Measures how far gradients reach back at initialization, for RNN, IRNN, LSTM, GRU and Transformer.

    seqlab prepare cldr_phrases/en-de
    python scripts/pathologies.py

The models are language models with one layer of width 128, on 200 characters of German phrases. The measure is the
norm of the gradient of the loss of the last character with respect to each earlier embedding. Writes
docs/gradients.png.
"""

import dataclasses
import functools
import os
from pathlib import Path

from matplotlib.figure import Figure

from seqlab import catalogue
from seqlab.config import Batching, Text
from seqlab.evaluation.diagnosis.gradients import gradients_over_time
from seqlab.models.recurrent_lm import RecurrentLM
from seqlab.models.transformer_lm import TransformerLM
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.training.prepare import prepare_experiment
from seqlab.training.state import initial_state

ROOT = Path(__file__).parents[1]
DATA_DIR = Path(os.environ.get("SEQLAB_DATA", "data"))
LENGTH = 200
MODELS = {cell: RecurrentLM(cell=cell, layers=1, dim=128) for cell in ("rnn", "irnn", "lstm", "gru")} | {
    "Transformer": TransformerLM(layers=1, dim=128, heads=4, hidden=512)
}


def main() -> None:
    base = dataclasses.replace(
        catalogue.load_config(ROOT / "configs" / "phrases_lm.py"),
        task=LanguageModeling(rows="stream"),
        text=Text("char", 400),
        batching=Batching(tokens=32 * LENGTH, max_length=LENGTH),
    )
    chart = Figure(figsize=(8, 4.2), layout="constrained")
    axis = chart.subplots()
    for name, model in MODELS.items():
        made = prepare_experiment(dataclasses.replace(base, model=model), DATA_DIR, ROOT)  # ROOT has no run
        task = made.experiment.task
        plan = task.plan(made.corpus, made.experiment.batching)
        batch = made.collate(plan.batches(0, 0)[1], 0)
        loss = functools.partial(task.loss, made.experiment.model)
        found = gradients_over_time(loss, initial_state(made.experiment, batch).params, batch)["target"]
        total = f"x {found.left:.2g} in total"
        print(f"{name:12} x {found.factor:.3g} per position, {total}: {found.verdict}", flush=True)
        axis.semilogy(found.norms, label=f"{name}: x {found.factor:.3g} per position")
    axis.set(title="gradients over positions, at initialization", xlabel="positions back")
    axis.set_ylabel("norm of d loss / d embedding")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    chart.savefig(ROOT / "docs" / "gradients.png", dpi=110)


if __name__ == "__main__":
    main()
