"""`seqlab show-batch`: the complete batch of a training step."""

import dataclasses
import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from seqlab import catalogue
from seqlab.config import Batching, Text
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.evaluation import show_batch
from seqlab.laws.tasks import tiny_corpus, tiny_plan
from seqlab.laws.training import tiny_experiment
from seqlab.runs.folder import open_run
from seqlab.runs.manifest import write_manifest
from seqlab.runs.trail import DIGITS, PARTS, digest
from seqlab.system.errors import SeqlabError
from seqlab.system.terminal import grid, printable, width_of
from seqlab.training.feed import stream_batches
from seqlab.training.prepare import plan_batches, prepare_experiment
from seqlab.types import Batch, Frames, Tokens
from tests.command import call
from tests.mutants import Mutant, planted

TASKS = {
    f"{name}{i or ''}": task
    for name in catalogue.names("tasks")
    for i, task in enumerate(
        (catalogue.part_class("tasks", name)(), *getattr(catalogue.module("tasks", name), "VARIANTS", ()))
    )
}


PAIRS = ("pair_classification", "span_extraction")
SPELLED = [name for name, task in TASKS.items() if not task.corrupts and name not in PAIRS]  # tokens spell one text


def test_batches_with_targets_at_unknown_places_are_refused():
    batch = fed_of("span_extraction")[0].batch
    show_batch.check_shown(batch, TASKS["span_extraction"])
    with pytest.raises(SeqlabError, match="not one target per row or position: define Classification.places"):
        show_batch.check_shown(batch, TASKS["classification"])
    with pytest.raises(SeqlabError, match="Classification cannot be shown: they need the fields inputs, targets and"):
        show_batch.check_shown(batch.inputs, TASKS["classification"])


def test_places_of_targets():
    """A masked token is predicted at its place, a next and a previous token next to theirs, a span at its ends."""
    fed, _ = fed_of("masked_tokens")
    row = show_batch.facts(fed, Path(), 1)["rows"][0]
    real = sum(row["targets"]["mask"])
    assert row["targets"]["place"][:real] == fed.batch.places[0][:real].tolist()
    assert row["fields"] == {"follows": 0}
    rows = show_batch.facts(fed_of("bidirectional_modeling")[0], Path(), 9)["rows"]
    for row in rows:
        ids, half = row["inputs"]["id"], len(row["inputs"]["id"])
        for i, (place, real, target) in enumerate(
            zip(*(row["targets"][name] for name in ("place", "mask", "id")), strict=True)
        ):
            assert not real or ids[place + (1 if i < half else -1)] == target
    fed, examples = fed_of("span_extraction")
    for row in show_batch.facts(fed, Path(), 99)["rows"]:
        first, last = row["targets"]["place"]
        answer = examples[row["examples"][0]]["answer"]
        assert fed.codecs["source"].decode(row["inputs"]["id"][first : last + 1]) == answer
        assert row["targets"]["token"] == [row["inputs"]["token"][place] for place in (first, last)]
    shown = show_batch.format_batch(show_batch.facts(fed_of("masked_tokens")[0], Path(), 1), 80)
    assert "  targets\n" in shown
    assert "\n  follows 0\n" in shown


def quiet(line):
    """Discards a line."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run, and the batches of its training steps."""
    home = tmp_path_factory.mktemp("home")
    experiment = dataclasses.replace(
        tiny_experiment(),
        data=CldrPhrases(train=30, validation=2, test=2),
        steps=20,
        text=Text("char", 400),
        batching=Batching(tokens=900, buckets=2, max_length=120),
    )
    prepared = prepare_experiment(experiment, home / "data", home / "run")
    experiment, data, codecs, corpus = prepared
    open_run(experiment, codecs, data.hashes, home / "run")
    plan = plan_batches(experiment, corpus, quiet)
    fed = list(itertools.islice(stream_batches(plan, experiment.seed, prepared.collate, 0, 0), 24))
    assert fed[-1][0] > 1  # several epochs
    return home, [batch for _, _, batch in fed]


def same(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


@pytest.mark.parametrize("step", [1, 2, 7, 19, 20])
def test_it_is_what_the_step_is_fed(home, step):
    folder, batches = home
    assert same(show_batch.training_batch(folder / "run", step, folder / "data").batch, batches[step - 1])


def test_batches_that_were_passed_over_are_not_counted(home):
    folder, batches = home
    checkpoint = folder / "run" / "checkpoints" / "4"
    checkpoint.mkdir(parents=True)
    write_manifest(folder / "run", 4, {"left_out": [[0, 3], [0, 1]]}, {})
    try:
        for step, batch in ((1, 0), (2, 2), (3, 4), (20, 21)):
            assert same(show_batch.training_batch(folder / "run", step, folder / "data").batch, batches[batch])
    finally:
        (checkpoint / "manifest.json").unlink()


@pytest.mark.parametrize("seed", range(20))
def test_place_of_step(seed):
    """The place of a step, compared with a list of all places without the skipped ones."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 6, 5).tolist()
    places = [(epoch, index) for epoch, length in enumerate(lengths) for index in range(length)]
    out = [place for place in places if random.random() < 0.3 * (seed % 3)]
    kept = [place for place in places if place not in out]
    random.shuffle(out)
    beyond = [[0, lengths[0]], [9, 0]]  # from a plan that had more batches
    result = [show_batch.place_of_step(lengths, n, [*map(list, out), *beyond]) for n in range(1, len(kept) + 1)]
    assert result == kept
    with pytest.raises(SeqlabError, match="does not exist"):
        show_batch.place_of_step(lengths, len(kept) + 1, out)


@functools.cache
def fed_of(name: str) -> tuple[show_batch.TrainingBatch, list[dict[str, str]]]:
    """Returns the fullest batch of a task on a tiny corpus, and the examples."""
    task = TASKS[name]
    corpus, codecs, examples = tiny_corpus(task)
    batches = tiny_plan(task, corpus).batches(0, 0)
    batch_plan = max(batches, key=lambda batch_plan: len(batch_plan.indices))
    batch = task.collate(corpus, batch_plan, codecs)
    return show_batch.TrainingBatch(batch, batch_plan, task, codecs, 1, 1, (0, 0), len(batches), []), examples


def rebuilt(facts: dict, like: Any) -> Any:
    """Reconstructs the batch from the JSON of all its rows."""

    def stack(side, name, dtype):
        return np.array([row[side][name] for row in facts["rows"]], dtype)

    def side(name, like):
        if like is None:
            return None
        mask = stack(name, "mask", bool)
        if isinstance(like, Frames):
            names = [key for key in facts["rows"][0][name] if key.startswith("value")]
            return Frames(np.stack([stack(name, key, np.float32) for key in names], axis=-1), mask)
        marks = {
            field: None if getattr(like, field) is None else stack(name, mark, getattr(like, field).dtype)
            for field, mark in (("segments", "segment"), ("sentences", "sentence"), ("types", "type"))
        }
        return Tokens(stack(name, "id", np.int32), mask, **marks)

    rows = facts["rows"]
    if "targets" in rows[0]:
        places, ids = stack("targets", "place", np.int32), stack("targets", "id", np.int32)
        values = {"inputs": side("inputs", like.inputs), "weights": stack("targets", "weight", np.float32)}
        if hasattr(like, "places"):
            follows = np.array([row["fields"]["follows"] for row in rows], np.int32)
            return like.replace(**values, places=places, targets=ids, follows=follows)
        return like.replace(**values, targets=places if like.targets.shape[1] == 2 else ids)
    if like.targets.ndim == 2:
        last = "inputs" if like.prefix is None else "prefix"
        targets, weights = stack(last, "target id", np.int32), stack(last, "weight", np.float32)
    else:
        targets = np.array([row.get("id", row["target"]) for row in rows], like.targets.dtype)
        weights = np.array([row["weight"] for row in rows], np.float32)
    fresh = None if like.fresh is None else np.array([row["fresh"] for row in rows])
    return Batch(side("inputs", like.inputs), side("prefix", like.prefix), targets, weights, fresh)


@pytest.mark.parametrize("name", TASKS)
def test_json_has_the_whole_batch(tmp_path, name):
    """The JSON contains the batch of every task bit for bit, with its padding and weight."""
    fed, _ = fed_of(name)
    result = json.loads(json.dumps(show_batch.facts(fed, tmp_path, 10**6)))
    again = rebuilt(result, fed.batch)
    assert same(again, fed.batch)
    assert (result["digest"], result["as fed"]) == (digest(again), None)
    masks = [side.mask for side in show_batch.sides_of(again).values()]
    assert result["padding"] == pytest.approx(np.concatenate([~mask.ravel() for mask in masks]).mean())
    assert result["weight"] == again.weights.sum()


@pytest.mark.parametrize("name", SPELLED)
def test_rows_say_which_examples_they_hold(tmp_path, name):
    """The tokens of a row spell the texts of its examples; in a stream, the joined text from the place of the row."""
    fed, examples = fed_of(name)
    rows = show_batch.facts(fed, tmp_path, 10**6)["rows"]
    column = "target" if fed.batch.inputs is None else "source"
    tokenizer, side = fed.codecs[column], "prefix" if column == "target" else "inputs"
    whole = tokenizer.encode(["\n".join(example[column] for example in examples)])[0] if "place" in rows[0] else []
    seen = []
    for row in rows:
        real = [i for i, mask in zip(row[side].get("id", []), row[side]["mask"], strict=False) if mask]
        if "place" in row:
            before = max(-row["place"], 0)
            assert real == whole[row["place"] + before :][: len(real)]
            assert row["fresh"] == fed.batch_plan.starts_stream
            continue
        seen += row["examples"]
        texts = [examples[i][column] for i in row["examples"]]
        if "value" in row[side] or "value 1" in row[side]:
            first = row[side].get("value", row[side].get("value 1"))[0]
            assert not texts or float(texts[0].split()[0]) == pytest.approx(first)
        elif column == "target":
            assert tokenizer.decode(real) == "".join(texts)  # the BOS between them is not part of the text
            assert row[side]["token"][: len(real)].count("<s>") == len(texts)
        else:
            most = getattr(TASKS[name], "max_tokens", getattr(TASKS[name], "source_tokens", 10**6))
            assert most > len(real)
            assert tokenizer.decode(real) == "".join(texts)
    assert "place" in rows[0] or seen == fed.batch_plan.indices.tolist()


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", TASKS)
def test_the_grid_shows_every_position(tmp_path, name, width):
    """The grid has all tokens in order for every width, merges pads, and is not wider than the terminal."""
    fed, _ = fed_of(name)
    result = show_batch.facts(fed, tmp_path, 2)
    lines = show_batch.format_batch(result, width).splitlines()
    assert all(width_of(line) <= width for line in lines if line.startswith("    "))
    for side in ("inputs", "prefix"):
        for row in result["rows"]:
            if side in row:
                cells = show_batch.side_lines(row[side], 10**6)
                told = dict(line.strip().split(maxsplit=1) for line in cells if not line.strip().startswith("value"))
                mask = row[side]["mask"]
                if mask[0]:
                    positions = told["position"].split()[: sum(mask)]
                    assert positions == [str(n) for n in row[side]["position"][: sum(mask)]]
                if "token" in told:
                    pads = [int(count or 1) for count in re.findall(r"·(?: x (\d+))?", told["token"])]
                    assert sum(pads) == mask.count(False)
                    assert len(pads) < 2 or "place" in row  # before a text, the last pad may have a target
                    tokens = [token for token, real in zip(row[side]["token"], mask, strict=True) if real]
                    assert re.sub(r"· x \d+|·", "", told["token"]).split() == tokens
    assert (f"... and {result['count'] - 2} more rows" in lines) == (result["count"] > 2)


@pytest.mark.parametrize("line", ["id", "weight", "segment", "target id"])
def test_what_does_not_belong_in_a_pad_is_seen(line):
    """A pad with a nonzero id, weight, segment or target is not merged with the others."""
    side = {
        "position": [0, 0, 0, 0],
        "mask": [True, False, False, False],
        "id": [5, 0, 0, 0],
        "token": ["a", "<pad>", "<pad>", "<pad>"],
        "segment": [1, 0, 0, 0],
        "target id": [6, 0, 0, 0],
        "target": ["b", "<pad>", "<pad>", "<pad>"],
        "weight": [1.0, 0.0, 0.0, 0.0],
    }
    assert "· x 3" in "\n".join(show_batch.side_lines(side, 80))
    side[line][2] = 7
    name = {"id": "token", "target id": "target"}.get(line)
    if name:
        side[name][2] = "odd"
    told = "\n".join(show_batch.side_lines(side, 80))
    assert ("odd" if name else "7") in told
    assert "· x" not in told


def test_a_grid_of_wide_and_empty_cells():
    """Ideographs take two columns; a cell that is wider than the terminal becomes a separate block."""
    lines = {"a": ["1", "東京", "x" * 30, ""], "bb": ["22", "3", "4", "5"]}
    assert grid(lines, 16, 1) == [
        " a   1  東京",
        " bb  22 3",
        "",
        f" a   {'x' * 30}",
        " bb  4",
        "",
        " a",
        " bb  5",
    ]
    assert printable("a\x1b[2J\u202eб東\n") == r"a\x1b[2J\u202eб東\n"


def test_the_command(home, capsys):
    folder, batches = home
    arguments = ("show-batch", "run", "--step", "3", "--data-dir", "data")
    assert call(folder, *arguments, "--rows", "2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["step"], result["steps"], len(result["rows"]), result["changed"]) == (3, 20, 2, [])
    assert (result["epoch"], result["index"], result["digest"]) == (0, 2, digest(batches[2]))
    assert call(folder, *arguments) == 0
    told = capsys.readouterr().out
    assert told.startswith("step 3 of 20: epoch 0, batch 2 of its ")
    assert f"... and {len(batches[2].targets) - 3} more rows\n" in told


def test_what_is_no_longer_what_was_fed_is_told(home, capsys):
    """Changed data, and a batch that differs from the run's trail, are reported."""
    folder, batches = home
    record = folder / "run" / "data.json"
    before = record.read_text()
    record.write_text(json.dumps({**json.loads(before), "train": "0" * 64}))
    arguments = ("show-batch", "run", "--data-dir", "data", "--rows", "1", "--step")
    assert call(folder, *arguments, "2") == 0
    assert "data: changed since the run was trained: train\n" in capsys.readouterr().out
    record.write_text(before)
    line = dict.fromkeys(PARTS, "0" * DIGITS)
    kept = [{**line, "step": 1}, {**line, "step": 2, "batch": digest(batches[1])}]
    (folder / "run" / "hashes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    for step, told in ((1, ": DIFFERS from the run's trail"), (2, ", equal to the run's trail"), (3, "")):
        assert call(folder, *arguments, str(step)) == 0
        assert capsys.readouterr().out.splitlines()[2] == f"hash {digest(batches[step - 1])}{told}"
    (folder / "run" / "hashes.jsonl").unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu", "--step", "1"], "rnu is not a run"),
        (["run"], "no batch is named: give --step N (the first step is 1) or --batch EPOCH/INDEX"),
        (["run", "--step", "1", "--batch", "0/1"], "both name a batch: leave out --step or --batch"),
        (["run", "--step", "0"], "--step must be at least 1, not 0"),
        (["run", "--step", "21"], "--step 21: run has 20 steps"),
        (["run", "--step", "1", "--rows", "0"], "--rows must be at least 1, not 0"),
    ],
)
def test_bad_input_is_one_line(home, capsys, arguments, message):
    assert call(home[0], "show-batch", *arguments, "--data-dir", "data") == 2
    error = capsys.readouterr().err
    assert (message in error, error.count("\n")) == (True, 1)


MUTANTS = (
    (
        Mutant(
            "batches passed over counted",
            "evaluation.show_batch",
            "index += skipped <= index",
            "index += 0",
            "test_place_of_step",
        ),
        (2,),
    ),
    (
        Mutant(
            "the first step taken for the second",
            "evaluation.show_batch",
            "index = remaining - 1",
            "index = remaining % length",
            "test_place_of_step",
        ),
        (3,),
    ),
    (
        Mutant(
            "examples of the row before in a packed row",
            "evaluation.show_batch",
            "record.batch_plan.only(np.array([row]))",
            "record.batch_plan.only(np.array([max(row - 1, 0)]))",
            "test_rows_say_which_examples_they_hold",
        ),
        ("tmp_path", "language_modeling1"),
    ),
    (
        Mutant(
            "a single pad dropped",
            "evaluation.show_batch",
            "shown_columns += [cells] * count",
            "shown_columns += [cells] * (count if real else count // 2)",
            "test_the_grid_shows_every_position",
        ),
        ("tmp_path", "translation", 80),
    ),
    (
        Mutant(
            "places of another row",
            "evaluation.show_batch",
            "np.where(weights > 0, places[row], 0)",
            "np.where(weights > 0, places[row - 1], 0)",
            "test_places_of_targets",
        ),
        (),
    ),
    (
        Mutant(
            "the label's name of another class",
            "evaluation.show_batch",
            "batch.targets[row].item(), batch",
            "batch.targets[row - 1].item(), batch",
            "test_json_has_the_whole_batch",
        ),
        ("tmp_path", "classification"),
    ),
)


@pytest.mark.parametrize(("mutant", "arguments"), MUTANTS, ids=lambda x: getattr(x, "bug", "").replace(" ", "-"))
def test_mutant_is_caught(mutant, arguments, tmp_path):
    given = [tmp_path if argument == "tmp_path" else argument for argument in arguments]
    with planted(mutant, "tests.evaluation.test_show_batch") as mutated, pytest.raises(AssertionError):
        getattr(mutated, mutant.law)(*given)


def test_a_batch_by_its_place(home, capsys):
    """A batch that was left out belongs to no step."""
    folder, batches = home
    assert same(show_batch.training_batch(folder / "run", 0, folder / "data", (0, 3)).batch, batches[3])
    assert call(folder, "show-batch", "run", "--batch", "0/3", "--data-dir", "data") == 0
    assert capsys.readouterr().out.startswith("epoch 0, batch 3 of its ")
    for wrong, message in (("0/999", "an epoch has"), ("3", "EPOCH/INDEX"), ("0/-1", "EPOCH/INDEX")):
        assert call(folder, "show-batch", "run", "--batch", wrong, "--data-dir", "data") == 2
        assert message in capsys.readouterr().err
