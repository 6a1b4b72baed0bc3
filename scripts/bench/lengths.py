"""Measures how the cost of a step grows with sequence length, for recurrent, convolutional and attention models.

    python scripts/bench/lengths.py

Measures a training step and a decoding step (beam 5) of encoder-decoders of width 128 with a vocabulary of 1,000, on
one pair of sequences of N positions each. Writes docs/cost.md and docs/cost.png.
"""

import dataclasses
import sys
from pathlib import Path

from matplotlib.figure import Figure
from rounds import grown, run_main

from seqlab import catalogue
from seqlab.evaluation.cost import Costs, costs, parameters
from seqlab.layers.nesting import with_fields
from seqlab.models.bahdanau import Bahdanau
from seqlab.models.conv_seq2seq import ConvSeq2Seq
from seqlab.models.sutskever import Sutskever
from seqlab.models.transformer import Transformer
from seqlab.system.files import write_atomically
from seqlab.system.memory import keep_freed_memory

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "cost.md"
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
MODELS = {
    "recurrent: `sutskever`, LSTM, 2+2 layers": Sutskever(dim=128, layers=2),
    "with attention: `bahdanau`, GRU": Bahdanau(dim=128),
    "convolutional: `conv_seq2seq`, 12+12 dilated layers": ConvSeq2Seq(
        dim=128, encoder_layers=12, decoder_layers=12, cycle=12, positions="sinusoidal"
    ),
    "Transformer: `transformer`, 3+3 layers": Transformer(
        dim=128, heads=4, hidden=512, encoder_layers=3, decoder_layers=3
    ),
}
QUANTITIES = {
    "operations of a training step, G": lambda one: one.training.operations / 1e9,
    "products in a row, training": lambda one: one.training.sequential,
    "a training step, ms": lambda one: one.training.seconds * 1e3,
    "memory of a training step, MiB": lambda one: one.training.memory / 2**20,
    "a decoding step at position N, ms": lambda one: one.decoding.seconds * 1e3,
    "memory of a decoding step, MiB": lambda one: one.decoding.memory / 2**20,
}


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def grid(title: str, values: dict[str, list[float | None]]) -> str:
    head = f"| {title} | " + " | ".join(map(str, LENGTHS)) + " |\n" + "|---" * (1 + len(LENGTHS)) + "|\n"
    return head + "".join(f"| {name} | {' | '.join(map(shown, row))} |\n" for name, row in values.items())


def draw(found: dict[str, list[Costs]], path: Path) -> None:
    chart = Figure(figsize=(13, 7.2), layout="constrained")
    for axis, (title, quantity) in zip(chart.subplots(2, 3).flat, QUANTITIES.items(), strict=True):
        for name, row in found.items():
            axis.loglog(LENGTHS, [quantity(one) for one in row], marker=".", label=name.partition(":")[0])
        axis.set(title=title, xlabel="positions N")
        axis.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    chart.axes[0].legend()
    chart.savefig(path, dpi=110)


def main() -> None:
    before, mark, _ = TABLE.read_text().partition("<!-- measured -->\n")
    if not mark:
        sys.exit(f"{TABLE} has lost the line that marks the tables")
    keep_freed_memory()
    base = catalogue.load_config(ROOT / "configs" / "multi30k_transformer.py")
    found: dict[str, list[Costs]] = {}
    sizes = {}
    for name, model in MODELS.items():
        experiment = dataclasses.replace(base, model=with_fields(model, vocabulary=1000))
        sizes[name], found[name] = parameters(experiment), []
        for length in LENGTHS:
            found[name].append(costs(experiment, length, rows=1))
            print(f"# {name}, {found[name][-1]}", flush=True)
        for quantity in (
            "a training step, ms",
            "memory of a training step, MiB",
            "a decoding step at position N, ms",
        ):
            values = [QUANTITIES[quantity](one) for one in found[name]]
            short = name.partition(":")[0]
            grown(f"growth/length/{short}/{quantity}", "positions", LENGTHS, values, quantity.split(", ")[-1])
    lines = [f"- {name}: {size:,} parameters" for name, size in sizes.items()]
    moves = {
        f"{name.partition(':')[0]}, from the {side}": [one.paths[side] for one in row]
        for name, row in found.items()
        for side in ("source", "target")
    }
    tables = [
        grid(title, {name: [quantity(one) for one in row] for name, row in found.items()})
        for title, quantity in QUANTITIES.items()
    ]
    tables.append(grid("most moves from a position to the last output", moves))
    write_atomically(TABLE, before + mark + "\n".join(lines) + "\n\n" + "\n".join(tables))
    draw(found, TABLE.with_suffix(".png"))


if __name__ == "__main__":
    run_main(main)
