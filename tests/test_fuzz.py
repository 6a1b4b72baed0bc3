"""Every reader reports malformed input in one line, and the fuzzer detects readers that do not."""

import time

import pytest

from seqlab.system.errors import SeqlabError
from tests import fuzz
from tests.mutants import Mutant, planted

FAST = {"checkpoint": 10, "run, all its files": 6, "folder of TFDS": 6, "prepared data": 10, "folder of Marian": 10}


# Orbax stops at the first array that it cannot read; the errors of TensorStore about other arrays come too late.
@pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("reader", fuzz.READERS, ids=lambda reader: reader.name)
def test_every_input_is_read_or_refused(reader):
    counts = fuzz.try_reader(reader, FAST.get(reader.name, 20), seed=0)
    assert counts.faults == {}
    assert counts.accepted + counts.refused == counts.inputs
    assert counts.accepted * 10 >= counts.inputs
    # Orbax chooses random file names, so it is random which files of the few inputs with a checkpoint are malformed.
    assert counts.refused * 10 >= counts.inputs or reader.seal is fuzz.seal_checkpoint


def write(r, folder):
    (folder / "file").write_text('{"a": 1}')


def fails(folder):
    raise KeyError("a")


def leaves_something(folder):
    (folder / "half").touch()
    raise SeqlabError(f"{folder}: no")


def leaves_a_part(folder):
    (folder / "x.part").touch()


def tells_too_much(folder):
    raise SeqlabError(f"{folder}: one\ntwo")


def names_nothing(folder):
    raise SeqlabError("something is wrong")


def hangs(folder):
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (fails, "KeyError: 'a'"),
        (leaves_something, "left behind: half"),
        (leaves_a_part, "left behind: x.part"),
        (tells_too_much, "an error that is not one line"),
        (names_nothing, "an error that is not one line naming the file"),
        (hangs, "hangs"),
    ],
)
def test_the_fuzzer_sees(read, fault, tmp_path):
    reader = fuzz.Reader("planted", write, read)
    seconds = 0.05 if read is hangs else fuzz.SECONDS
    counts = fuzz.try_reader(reader, 2, seed=0, keep=tmp_path, seconds=seconds)
    assert list(counts.faults) == ["planted 0 0", "planted 0 1"]
    assert all(told.startswith(fault) for told in counts.faults.values())
    assert (tmp_path / "planted 0 0" / "file").read_text() == '{"a": 1}'


def test_the_same_label_is_the_same_input(tmp_path):
    reader = next(reader for reader in fuzz.READERS if reader.name == "table, .jsonl")
    for label in map(str, range(20)):
        one, two = tmp_path / f"one{label}", tmp_path / f"two{label}"
        for folder in (one, two):
            fuzz.make_input(reader, label, True, folder)
        assert fuzz.listing(one) == fuzz.listing(two)
        for name in fuzz.listing(one):
            if (one / name).is_file() and not (one / name).is_symlink():
                assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_table():
    found = {"a": fuzz.Counts(10, 5, 6, 4, {}), "b": fuzz.Counts(4, 2, 2, 1, {"b 0 1": "hangs"})}
    assert list(fuzz.table(found))[2:] == [
        "| a | 10 | 5 | 6 | 4 | 0 |",
        "| b | 4 | 2 | 2 | 1 | 1 |",
        "| all | 14 | 7 | 8 | 5 | 1 |",
    ]


MUTANTS = (
    (
        Mutant(
            "deep nesting",
            "system.untrusted",
            "except (ValueError, RecursionError) as error:",
            "except ValueError as error:",
            "",
        ),
        "metrics.jsonl",
    ),
    (Mutant("no types", "system.untrusted", "if not fits(value, kind):", "if False:", ""), "names of classes"),
    (
        Mutant(
            "any manifest", "runs.manifest", "if not is_manifest or manifest[", "if is_manifest and manifest[", ""
        ),
        "manifest.json",
    ),
    (
        Mutant(
            "any error",
            "catalogue",
            "except (TypeError, KeyError, AttributeError, RecursionError)",
            "except OSError",
            "",
        ),
        "experiment.json",
    ),
    (Mutant("any offsets", "data.corpus", "or starts[-1] != len(values[column])", "", ""), "cache of ids"),
    (
        Mutant(
            "any plan",
            "data.plan_cache",
            "plan is None or not is_possible(plan, batching, examples)",
            "plan is None",
            "",
        ),
        "plan of batches",
    ),
    (Mutant("any order", "data.plan_cache", "and (np.diff(ids) > 0).all()", "", ""), "plan of batches"),
    (Mutant("any id", "data.corpus", "column in self.sizes and", "False and", ""), "cache of ids"),
    (Mutant("any pieces", "codecs.marian", "and 0 <= i < len(pieces)", "", ""), "pieces of Marian"),
)


@pytest.mark.parametrize(("mutant", "reader"), MUTANTS, ids=lambda value: getattr(value, "name", ""))
def test_planted_bugs_are_seen(mutant, reader):
    with planted(mutant, "tests.fuzz") as module:
        (chosen,) = [one for one in module.READERS if one.name == reader]
        # Few of the errors that an experiment can raise are of the kinds that this bug lets through.
        inputs = 480 if reader == "experiment.json" else 120
        assert module.try_reader(chosen, inputs, seed=0).faults
