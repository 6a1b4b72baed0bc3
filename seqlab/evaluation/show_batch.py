"""The batch of a training step: its rows with masks, positions, targets and weights."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from seqlab import catalogue
from seqlab.codecs.codec import Codecs
from seqlab.data.batches import SIDES, check_fields, make_batch, sides_of
from seqlab.data.codec_files import RUN_RECORD
from seqlab.data.plans import BatchPlan
from seqlab.data.task import Task
from seqlab.layers.embed import positions_of
from seqlab.runs import manifest
from seqlab.runs.trail import TRAIL, digest, read_trail
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.system.terminal import grid, printable
from seqlab.training.checks import check_experiment
from seqlab.training.prepare import plan_batches, prepare_experiment
from seqlab.types import Frames, Tokens

PAD = "·"
KNOWN = (*SIDES, "places", "targets", "weights", "fresh")  # the fields of batches; others are shown by row


class TrainingBatch(NamedTuple):
    """A batch and its place in the run and in the data."""

    batch: Any
    batch_plan: BatchPlan
    task: Task
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
    check_shown(batch, experiment.task)
    changed = data.changed_since(run / RUN_RECORD)
    return TrainingBatch(
        batch, batch_plan, experiment.task, codecs, step, experiment.steps, place, len(batches), changed
    )


def check_shown(batch: Any, task: Task) -> None:
    """Raises `SeqlabError` for a batch whose targets have unknown positions."""
    name = type(task).__name__
    check_fields(batch, task, "shown")
    lengths = [side.mask.shape[1] for side in sides_of(batch).values() if isinstance(side, Tokens | Frames)]
    if task.places(batch) is None and batch.targets.shape[1:] not in ((), tuple(lengths[-1:])):
        raise SeqlabError(
            f"the batches of {name} cannot be shown: there is not one target per row or position: define "
            f"{name}.places"
        )


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
    masks = [side.mask for side in sides_of(batch).values()]
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
    """Returns a row: its origin, its sides as lists of values by position, its targets by position or place, or its
    single target, and its values in other fields of the batch.
    """
    batch, codecs, places = record.batch, record.codecs, record.task.places(record.batch)
    sides = sides_of(batch)
    result: dict[str, Any] = {"row": row, **origin(record, row)}
    result |= {name: by_position(side, row, codecs[SIDES[name]]) for name, side in sides.items()}
    label_tokenizer = next(codecs[name] for name in ("label", "target", "source") if name in codecs)
    if places is not None:
        result["targets"] = by_place(record, places, row, label_tokenizer)
    elif batch.targets.ndim == 2:
        *_, last = sides
        result[last] |= {
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
    further = [field.name for field in dataclasses.fields(batch) if field.name not in KNOWN]
    return result | {"fields": {name: getattr(batch, name)[row].tolist() for name in further}}


def by_place(record: TrainingBatch, places: np.ndarray, row: int, tokenizer: Any) -> dict[str, list[Any]]:
    """Returns the targets of a row with the places that they are predicted at. Targets that are places are shown with
    the token of the inputs there.
    """
    batch, weights = record.batch, record.batch.weights[row]
    ids = batch.inputs.ids[row][places[row]] if places is batch.targets else batch.targets[row]
    return {
        "place": np.where(weights > 0, places[row], 0).tolist(),
        "mask": (weights > 0).tolist(),
        "id": ids.tolist(),
        "token": [name_of(tokenizer, i) for i in ids],
        "weight": weights.tolist(),
    }


def origin(record: TrainingBatch, row: int) -> dict[str, Any]:
    """Returns the training examples of a row or, for a stream, the place in the text where the row begins."""
    indices = record.batch_plan.only(np.array([row])).indices.tolist()
    if getattr(record.batch, "fresh", None) is not None:
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
        for side in (*SIDES, "targets"):
            if side in row:
                lines += [f"  {side}", *side_lines(row[side], width)]
        if "weight" in row:
            number = f" ({row['id']})" if "id" in row else ""
            lines.append(f"  target {format_cell(row['target'])}{number}, weight {row['weight']:g}")
        lines += [f"  {name} {format_cell(value)}" for name, value in row["fields"].items()]
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
