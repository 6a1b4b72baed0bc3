"""The hash trail: which changes affect it, and where two runs diverge."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from seqlab import catalogue
from seqlab.distributed.devices import fill_rows
from seqlab.laws.training import tiny_experiment
from seqlab.runs import bisect, trail
from seqlab.system.errors import SeqlabError
from seqlab.types import Batch, Tokens, TrainState
from tests.command import call
from tests.mutants import Mutant, planted


def batch_of(step: int) -> Batch:
    """Returns a batch of three rows of a stream, the last one shorter."""
    random = np.random.default_rng(step)
    mask = np.arange(5) < np.array([5, 5, 2])[:, None]
    ids, targets = random.integers(4, 90, (2, 3, 5)).astype(np.int32) * mask
    return Batch(None, Tokens(ids, mask), targets, mask.astype(np.float32), np.full(3, step == 1))


def state_of(step: int, rows: int = 3) -> TrainState:
    """Returns a state of a recurrent model, with its carry padded to `rows`."""
    random = np.random.default_rng(step + 1000)
    params = {"cell": {"kernel": random.normal(size=(2, 3)).astype(np.float32)}, "bias": np.zeros(3, np.float32)}
    carry = fill_rows((random.normal(size=(3, 2)).astype(np.float32),), rows)
    return TrainState(np.int32(step), params, {"mu": params["bias"] + step, "count": np.int32(step)}, carry, {})


def write(run, steps, state=state_of, batch=batch_of):
    with contextlib.closing(trail.Trail(run, 0)) as book:
        for step in steps:
            book.write(step, batch(step), state(step))


@pytest.fixture
def runs(tmp_path):
    """Two folders of the same experiment, without trails."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        catalogue.save_experiment(tiny_experiment(), tmp_path / name / "experiment.json")
        (tmp_path / name / "data.json").write_text(json.dumps({"train": "1" * 64, "test": "2" * 64}))
    return tmp_path


def test_every_leaf_counts_for_its_part_alone():
    """A change of the last bit of any leaf changes the digest of its part, and no other digest."""
    digests = trail.digests(batch_of(2), state_of(2))
    assert set(digests) == set(trail.PARTS)
    assert len({*digests.values()}) == 4

    def changed(x):
        x = np.array(x)
        flat = x.reshape(-1).view(np.uint8)
        flat[0] ^= 1
        return x

    for field in ("prefix", "targets", "weights", "fresh"):
        batch = batch_of(2)
        value = getattr(batch, field)
        new = value.replace(mask=changed(value.mask)) if field == "prefix" else changed(value)
        assert differing(digests, trail.digests(batch.replace(**{field: new}), state_of(2))) == ["batch"], field
    state = state_of(2)
    for part, new in (
        ("params", {**state.params, "cell": {"kernel": changed(state.params["cell"]["kernel"])}}),
        ("optimizer", {**state.optimizer, "count": changed(state.optimizer["count"])}),
        ("carry", (changed(state.carry[0]),)),
    ):
        assert differing(digests, trail.digests(batch_of(2), state.replace(**{part: new}))) == [part]


def differing(first, second):
    return [name for name in first if first[name] != second[name]]


@pytest.mark.parametrize("rows", [4, 8])
def test_rows_that_are_filled_up_do_not_count(rows):
    assert trail.digests(batch_of(2), state_of(2, rows)) == trail.digests(batch_of(2), state_of(2))


def test_resuming_leaves_the_trail_of_an_uninterrupted_run(tmp_path):
    """Lines after the checkpoint are written again, and a line truncated by a crash is removed."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    write(whole, range(2, 12, 2))
    write(cut, range(2, 10, 2))
    with (cut / "hashes.jsonl").open("a") as stream:
        stream.write('{"step": 10, "ba')
    with contextlib.closing(trail.Trail(cut, 5)) as resumed:
        assert list(trail.read_trail(cut)) == [2, 4]
        for step in (6, 8, 10):
            resumed.write(step, batch_of(step), state_of(step))
            assert list(trail.read_trail(cut))[-1] == step  # immediately, not when the file is closed
    assert (whole / "hashes.jsonl").read_bytes() == (cut / "hashes.jsonl").read_bytes()
    assert not list(cut.glob("*.part"))


def test_runs_that_agree(runs, capsys):
    """Runs on different numbers of devices, with trails that share only some steps."""
    write(runs / "a", range(2, 14, 2))
    write(runs / "b", range(3, 14, 3), lambda step: state_of(step, 8))
    assert call(runs, "bisect", "a", "b") == 0
    assert capsys.readouterr().out == "equal up to step 12\n"
    assert call(runs, "bisect", "a", "b", "--json") == 0
    expected = {"experiment": [], "data": [], "before": 12, "step": None, "parts": []}
    assert json.loads(capsys.readouterr().out) == expected


def other_state(part, since):
    """Returns a function of states in which a part differs from a step on."""

    def state(step):
        original, new = state_of(step), state_of(step + 1)
        return original.replace(**{part: getattr(new, part)}) if step >= since else original

    return state


@pytest.mark.parametrize("part", ["params", "optimizer", "carry"])
@pytest.mark.parametrize("since", [1, 5])
def test_the_first_difference_is_named(runs, part, since):
    write(runs / "a", range(1, 9))
    write(runs / "b", range(1, 9), other_state(part, since))
    bisection = bisect.bisect(runs / "a", runs / "b")
    assert (bisection.before, bisection.step, bisection.parts) == (since - 1, since, [part])
    assert "not the data" in bisect.format_bisection(bisection)
    assert ("different initial parameters" in bisect.format_bisection(bisection)) == (since == 1)


def test_another_batch_comes_first(runs, capsys):
    write(runs / "a", range(1, 9))
    write(runs / "b", range(1, 9), other_state("params", 5), lambda step: batch_of(step + 20 * (step > 4)))
    assert call(runs, "bisect", "a", "b") == 1
    lines = ["equal up to step 4", "step 5 differs: batch, parameters"]
    lines.append("the batches differ: the cause is the data or its order")
    assert capsys.readouterr().out.splitlines() == lines


def test_steps_without_hashes_hide_the_cause(runs, capsys):
    write(runs / "a", range(20, 90, 20))
    write(runs / "b", range(10, 90, 10), other_state("params", 60))
    assert call(runs, "bisect", "a", "b") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["equal up to step 40", "step 60 differs: parameters"]
    assert lines[2].startswith("the batches of step 60 are the same, but steps 41 to 59 left no hashes: train both")
    write(runs / "a", [1, 3])
    write(runs / "b", [1, 3], other_state("params", 3))
    assert "but step 2 left no hashes" in bisect.format_bisection(bisect.bisect(runs / "a", runs / "b"))


def test_experiments_and_data_that_differ_come_first(runs, capsys):
    experiment = dataclasses.replace(tiny_experiment(), seed=7)
    catalogue.save_experiment(experiment, runs / "b" / "experiment.json")
    (runs / "b" / "data.json").write_text(json.dumps({"train": "3" * 64, "test": "2" * 64}))
    write(runs / "a", range(1, 5))
    write(runs / "b", range(1, 5), other_state("params", 2))
    assert call(runs, "bisect", "a", "b") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["the experiments differ: seed: 0 -> 7", "the data differs: train", "equal up to step 1"]
    assert lines[-1].endswith(": the cause is different experiments or arithmetic, not the data")


def test_a_changed_byte_is_found_or_refused(runs):
    """A change of any byte of a trail is found at its step and part if it changes a digit, and refused otherwise."""
    write(runs / "a", range(1, 4))
    write(runs / "b", range(1, 4))
    path = runs / "b" / "hashes.jsonl"
    content = path.read_bytes()
    outcomes = set()
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            bisection = bisect.bisect(runs / "a", runs / "b")
        except SeqlabError as error:
            assert "hashes.jsonl" in str(error) or "trails" in str(error)
            outcomes.add("refused")
        else:
            line_number = content[:position].count(b"\n") + 1
            if bisection.step is not None:
                assert (bisection.step, bisection.before, len(bisection.parts)) == (line_number, line_number - 1, 1)
                outcomes.add(bisection.parts[0])
    assert outcomes == {*trail.PARTS, "refused"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "b has no hashes: train it with --hash-every N"),
        ("", "the runs have no hashed step in common (a: 3 steps from 2 to 6; b: no steps yet)"),
        ('{"step": 3', "the runs have no hashed step in common"),
        ("what?\n", "hashes.jsonl:1: not valid JSON"),
        ("[1]\n", "hashes.jsonl:1: unexpected content"),
        ('{"step": 2, "batch": "0123"}\n', "hashes.jsonl:1: damaged: a digest of 16 digits is missing"),
        ("[" * 100_000 + "\n", "hashes.jsonl:1: not valid JSON"),
        ('{"step": true}\n', "hashes.jsonl:1: damaged: its step is missing"),
        ('{"step": 4}\n{"step": 2}\n', "hashes.jsonl:2: damaged: its step is missing or lower"),
    ],
)
def test_no_trail_to_compare(runs, capsys, content, message):
    write(runs / "a", [2, 4, 6])
    if content is not None:
        (runs / "b" / "hashes.jsonl").write_text(content)
    assert call(runs, "bisect", "a", "b") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_no_run(runs, capsys):
    write(runs / "a", [1])
    assert call(runs, "bisect", "a", "c") == 2
    assert "c is not a run" in capsys.readouterr().err
    (runs / "b" / "data.json").write_text("[")
    assert call(runs, "bisect", "a", "b") == 2
    assert "data.json: not valid JSON" in capsys.readouterr().err


MUTANTS = (
    (
        Mutant(
            "padding rows count in the digests",
            "runs.trail",
            "x[: len(jax.tree.leaves(batch)[0])]",
            "x",
            "test_rows_that_are_filled_up_do_not_count",
        ),
        (4,),
    ),
    (
        Mutant(
            "the optimizer state is hashed as parameters",
            "runs.trail",
            '"optimizer": state.optimizer',
            '"optimizer": state.params',
            "test_every_leaf_counts_for_its_part_alone",
        ),
        (),
    ),
    (
        Mutant(
            "the last step before a checkpoint is removed",
            "runs.trail",
            'line["step"] <= step]',
            'line["step"] < step - 1]',
            "test_resuming_leaves_the_trail_of_an_uninterrupted_run",
        ),
        ("tmp_path",),
    ),
)


@pytest.mark.parametrize(("mutant", "arguments"), MUTANTS, ids=lambda x: getattr(x, "bug", "").replace(" ", "-"))
def test_mutant_is_caught(mutant, arguments, tmp_path):
    values = [tmp_path if value == "tmp_path" else value for value in arguments]
    with planted(mutant, "tests.runs.test_trail") as mutated, pytest.raises(AssertionError):
        getattr(mutated, mutant.law)(*values)
