"""The batch of a training step: its rows with masks, positions, targets and weights."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from seqlab import catalogue
from seqlab.codecs.codec import Codecs
from seqlab.data.batches import make_batch
from seqlab.data.codec_files import RUN_RECORD
from seqlab.data.plans import BatchPlan
from seqlab.layers.embed import positions_of
from seqlab.runs import manifest
from seqlab.runs.trail import TRAIL, digest, read_trail
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.system.terminal import grid, printable
from seqlab.training.checks import check_experiment
from seqlab.training.prepare import plan_batches, prepare_experiment
from seqlab.types import Batch, Frames, Tokens

PAD = "·"


class TrainingBatch(NamedTuple):
    """A batch and its place in the run and in the data."""

    batch: Batch
    batch_plan: BatchPlan
    codecs: Codecs
    step: int  # 0: unknown
    steps: int
    place: tuple[int, int]  # epoch and index, from 0
    batches: int  # of that epoch
    changed: list[str]  # splits that have changed since the run began


def training_batch(run: Path, step: int, data_dir: Path, place: tuple[int, int] | None = None) -> TrainingBatch:
    """Returns the batch of step `step` of a run, prepared as in training, or the batch at a `place` (epoch, index).
    Raises `SeqlabError` for a step or a batch that does not exist.
    """
    experiment = catalogue.load_experiment(run / "experiment.json")
    if place is None:
        check_minimum("--step", step, 1)
        if step > experiment.steps:
            raise SeqlabError(f"--step {step}: {run} has {experiment.steps:,} steps")
    check_experiment(experiment)
    experiment, data, codecs, corpus = prepare_experiment(experiment, data_dir, run, say=quiet)
    plan = plan_batches(experiment, corpus, quiet)
    order = functools.cache(functools.partial(plan.batches, experiment.seed))
    if place is None:
        saved = manifest.checkpoint_steps(run)
        progress = manifest.read_manifest(run, saved[-1])["progress"] if saved else {}
        place = place_of_step((len(order(n)) for n in itertools.count()), step, progress.get("left_out", ()))
    batches = order(place[0])
    if not 0 <= place[1] < len(batches):
        raise SeqlabError(f"--batch {place[0]}/{place[1]}: an epoch has {len(batches):,} batches, numbered from 0")
    batch_plan = batches[place[1]]
    batch = make_batch(experiment.task, corpus, codecs, batch_plan, (experiment.seed, place[0]))
    check_shown(batch, type(experiment.task).__name__)
    changed = data.changed_since(run / RUN_RECORD)
    return TrainingBatch(batch, batch_plan, codecs, step, experiment.steps, place, len(batches), changed)


def check_shown(batch: Any, task: str) -> None:
    """Raises `SeqlabError` for a batch whose targets are not those of its rows or positions."""
    sides = [getattr(batch, name, None) for name in ("prefix", "inputs")]
    lengths = [side.mask.shape[1] for side in sides if isinstance(side, Tokens | Frames)]
    if not isinstance(batch, Batch) or batch.targets.shape[1:] not in ((), tuple(lengths[:1])):
        raise SeqlabError(f"the batches of {task} cannot be shown: it does not have one target per row or position")


def quiet(line: str) -> None:
    """Discards a line that training would print."""


def place_of_step(lengths: Iterable[int], step: int, left_out: Sequence[Sequence[int]] = ()) -> tuple[int, int]:
    """Returns (epoch, index) of the batch of step `step`; the first step is 1.

    `lengths` are the numbers of batches of the epochs. `left_out` are the places of batches that were skipped.
    """
    remaining = step
    for epoch, length in enumerate(lengths):
        skipped_indices = sorted(
            index for skipped_epoch, index in left_out if skipped_epoch == epoch and index < length
        )
        if remaining <= length - len(skipped_indices):
            index = remaining - 1
            for skipped in skipped_indices:
                index += skipped <= index
            return epoch, index
        remaining -= length - len(skipped_indices)
    raise SeqlabError(f"step {step} does not exist: the epochs end before it")


def facts(record: TrainingBatch, run: Path, max_rows: int) -> dict[str, Any]:
    """Returns the facts about a batch and its first `max_rows` rows as plain values."""
    batch = record.batch
    masks = [side.mask for side in (batch.inputs, batch.prefix) if side is not None]
    batch_digest = digest(batch)
    hashed = read_trail(run).get(record.step) if (run / TRAIL).exists() else None
    return {
        "run": str(run),
        "step": record.step or None,
        "steps": record.steps,
        "epoch": record.place[0],
        "index": record.place[1],
        "batches": record.batches,
        "count": len(batch.targets),
        "shape": [mask.shape[1] for mask in masks],
        "padding": 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks),
        "weight": float(batch.weights.sum()),
        "digest": batch_digest,
        "as fed": None if hashed is None else hashed["batch"] == batch_digest,
        "changed": record.changed,
        "rows": [row_of(record, row) for row in range(min(max_rows, len(batch.targets)))],
    }


def row_of(record: TrainingBatch, row: int) -> dict[str, Any]:
    """Returns a row: its origin, its sides as lists of values by position, and its target if it has a single one."""
    batch, codecs = record.batch, record.codecs
    result: dict[str, Any] = {"row": row, **origin(record, row)}
    for name, column in (("inputs", "source"), ("prefix", "target")):
        side = getattr(batch, name)
        if side is not None:
            result[name] = by_position(side, row, codecs[column])
    label_tokenizer = codecs["label"] if "label" in codecs else codecs["target"]
    if batch.targets.ndim == 2:
        result["prefix" if batch.prefix is not None else "inputs"] |= {
            "target id": batch.targets[row].tolist(),
            "target": [name_of(label_tokenizer, i) for i in batch.targets[row]],
            "weight": batch.weights[row].tolist(),
        }
    else:
        number, weight = batch.targets[row].item(), batch.weights[row].item()
        target = (
            {"target": number}
            if isinstance(number, float)
            else {"target": name_of(label_tokenizer, number), "id": number}
        )
        result |= {**target, "weight": weight}
    return result


def origin(record: TrainingBatch, row: int) -> dict[str, Any]:
    """Returns the training examples of a row or, for a stream, the place in the text where the row begins."""
    indices = record.batch_plan.only(np.array([row])).indices.tolist()
    if record.batch.fresh is not None:
        return {"place": indices[0], "fresh": bool(record.batch.fresh[row])}
    return {"examples": indices}


def by_position(side: Tokens | Frames, row: int, tokenizer: Any) -> dict[str, list[Any]]:
    """Returns the values at each position of a row: the position as the model counts it, the mask, and the input."""
    segments = None if isinstance(side, Frames) or side.segments is None else jnp.asarray(side.segments[row][None])
    positions = positions_of(jnp.asarray(side.mask[row][None]), segments)
    result = {"position": np.asarray(positions)[0].tolist(), "mask": side.mask[row].tolist()}
    if isinstance(side, Frames):
        values = side.values[row].T.tolist()
        return result | {f"value {n}" if len(values) > 1 else "value": column for n, column in enumerate(values, 1)}
    result |= {"id": side.ids[row].tolist(), "token": [name_of(tokenizer, i) for i in side.ids[row]]}
    for name, marks in (("segment", side.segments), ("sentence", side.sentences), ("type", side.types)):
        if marks is not None:
            result[name] = marks[row].tolist()
    return result


def name_of(codec: Any, i: Any) -> str:
    """Returns a token as its codec writes it, or the name of a class or symbol."""
    return codec.names[int(i)]


def format_batch(data: dict[str, Any], width: int) -> str:
    """Returns the facts as text for a terminal of `width` columns."""
    shape, rows = " + ".join(map(str, data["shape"])), data["rows"]
    position = f"epoch {data['epoch']}, batch {data['index']:,} of its {data['batches']:,} (from 0)"
    padding, weight = f"{data['padding']:.1%} padding", f"weights {data['weight']:g} in all"
    trail = {None: "", True: ", equal to the run's trail", False: ": DIFFERS from the run's trail"}
    step = f"step {data['step']:,} of {data['steps']:,}: " if data["step"] else ""
    lines = [
        f"{step}{position}",
        f"{data['count']} rows of {shape} positions, {padding}, {weight}",
        f"hash {data['digest']}{trail[data['as fed']]}",
    ]
    if data["changed"]:
        lines.append(f"data: changed since the run was trained: {', '.join(data['changed'])}")
    for row in rows:
        lines += ["", f"row {row['row']}: {format_origin(row)}"]
        for side in ("inputs", "prefix"):
            if side in row:
                lines += [f"  {side}", *side_lines(row[side], width)]
        if "weight" in row:
            number = f" ({row['id']})" if "id" in row else ""
            lines.append(f"  target {format_cell(row['target'])}{number}, weight {row['weight']:g}")
    if data["count"] > len(rows):
        lines += ["", f"... and {data['count'] - len(rows)} more rows"]
    return "\n".join(lines)


def format_origin(row: dict[str, Any]) -> str:
    if "place" in row:
        carried = "fresh, without a carry" if row["fresh"] else "with the carry of the previous batch"
        return f"the text from token {row['place']:,} on, {carried}"
    examples = row["examples"]
    return f"example{'s' * (len(examples) > 1)} {', '.join(map(str, examples))}" if examples else "filled up"


def side_lines(side: dict[str, list[Any]], width: int) -> list[str]:
    """Returns a grid of one side. Consecutive equal pads share one column, with their count."""
    names = [name for name in side if name not in ("mask", "target id")]
    content = 1 if "id" not in names else names.index("token")  # the line that marks pads
    columns = []
    for real, *values in zip(side["mask"], *(side[name] for name in names), strict=True):
        cells = [format_cell(value) for value in values]
        if not real and not values[1]:  # an id or a value of zero, as expected
            cells[content] = PAD
        columns.append((real, tuple(cells)))
    shown_columns = []
    for (real, cells), same in itertools.groupby(columns):
        count = len(list(same))
        if not real and count > 1:
            cells, count = (*cells[:content], f"{cells[content]} x {count}", *cells[content + 1 :]), 1
        shown_columns += [cells] * count
    return grid(dict(zip(names, zip(*shown_columns, strict=True), strict=True)), width, 4)


def format_cell(value: Any) -> str:
    return printable(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
