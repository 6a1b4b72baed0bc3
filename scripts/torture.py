"""Kills training at random instants with SIGKILL, starts it again, and compares its end with that of a whole run.

    python scripts/torture.py [KILLS] [--seed N] [--only MODEL ...] [--folder DIR] [--json FILE]

Every model of the catalogue trains a tiny experiment twice: whole, and killed. The kills are dealt out over the
models and over five phases: data preparation, tokenizer training (and tokenizing), a step, a save, an evaluation.
Ways to run take turns over the models (one device; eight, shared by fsdp 2 and tensor 2; pmap over eight; two
processes of four): four seeds in a row pair each model with each way. The compiler takes its shortest way; a single
process keeps what it compiled, so that the whole run is of fresh code and the others are of kept code.

A run that was killed ends like the whole one if all of this is the same: the fingerprints and the progress of the
checkpoints; the logs of metrics and of hashes (one a step), tokenizers and the cache of ids to the byte; the prepared
examples; and the names of all files but TensorBoard's. Otherwise it is LOST: its folder is kept, and the exit code is
1.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqlab import catalogue
from seqlab.config import Batching, Checkpoints, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.data.records import FACTS, RECORD, VERSION, Prepared
from seqlab.datasets.adding_problem import AddingProblem
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.datasets.copy_memory import CopyMemory
from seqlab.datasets.local_files import LocalFiles
from seqlab.runs import checkpoint, manifest, saving
from seqlab.tasks.classification import Classification
from seqlab.tasks.dialogue import Dialogue
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.tasks.regression import Regression
from seqlab.tasks.tagging import Tagging
from seqlab.tasks.translation import Translation

ROOT = Path(__file__).resolve().parents[1]
PHASES = ("data preparation", "tokenizer training", "step", "save", "evaluation")
STEPS = 24
LENGTHS = 64  # of a phase: so many are noted, the last ones
TRIES = 4  # runs that may end before the phase wanted was hit
LONGEST = 900.0  # seconds: what takes longer hangs


class Way(NamedTuple):
    """How a run is spread out: processes, the devices of each, and more of the command."""

    processes: int
    devices: int
    options: tuple[str, ...] = ()


WAYS = {
    "jit": Way(1, 1),
    "fsdp and tensor": Way(1, 8, ("--parallel.fsdp", "2", "--parallel.tensor", "2")),
    "pmap": Way(1, 8, ("--parallel.name", "pmap")),
    "2 processes": Way(2, 4),
}


class Lost(Exception):
    """A run that did not end as the whole one did."""


# What is trained


def experiment_of(name: str, documents: str) -> Experiment:
    """A tiny experiment for a model: some three epochs, a checkpoint every sixth step."""
    model = catalogue.module("models", name).TINY
    sizes = {size: 0 for size in catalogue.SIZES if hasattr(model, size)}
    model = model.clone(**sizes, **({"dropout": 0.2} if hasattr(model, "dropout") else {}))
    few = {"train": 120, "validation": 16, "test": 6}
    phrases = CldrPhrases(**few)
    texts = LocalFiles(f"{documents}/train.jsonl", f"{documents}/validation.jsonl", source="document", label="topic")
    writer = Translation() if "source_vocabulary" in sizes else LanguageModeling()
    task, data = {
        "generator": (writer, phrases),
        "classifier": (Classification(), texts),
        "tagger": (Tagging(), CopyMemory(8, **few)),
        "regressor": (Regression(features=2), AddingProblem(12, **few)),
    }[catalogue.kind_of(model)]
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
    patient = dataclasses.replace(experiment.validation, metric="exact_match", patience=2)  # stops early: it stays 0
    dialogue = dataclasses.replace(texts, label="", target="reply")
    more: dict[str, dict[str, Any]] = {
        "bahdanau": {"optimizer": averaged},
        "conv_seq2seq": {"accumulate": 2},
        "hierarchical_attention": {"accumulate": 2},
        "hierarchical_seq2seq": {"task": Dialogue(), "data": dialogue},
        "mean_embeddings": {"optimizer": averaged},
        "recurrent_lm": {"task": LanguageModeling("stream"), "batching": Batching(tokens=128, max_length=16)},
        "sutskever": {"nonfinite": "skip"},
        "tcn_lm": {"task": LanguageModeling("packed"), "batching": Batching(tokens=1024, max_length=128)},
        "transformer": {"validation": patient},
        "transformer_lm": {"accumulate": 2, "optimizer": averaged},
    }
    return dataclasses.replace(experiment, **more.get(name, {}))


def write_documents(folder: Path) -> None:
    """Texts of a few sentences, their topics, and replies, all of made-up words."""
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


# The victim: `seqlab` as ever, which notes the phases it is in


def victim(marks: np.ndarray, plant: str, arguments: list[str]) -> None:
    """Runs the command; for each of `PHASES` a row of `marks` has how often it was entered, how often left, and the
    nanoseconds that it took.
    """
    from seqlab.cli import main
    from seqlab.training import loop, prepare, train

    begun: dict[str, deque[int]] = {phase: deque() for phase in PHASES}

    def enter(phase: str) -> None:
        begun[phase].append(time.monotonic_ns())
        marks[PHASES.index(phase), 0] += 1

    def leave(phase: str) -> None:
        row = marks[PHASES.index(phase)]
        row[2 + row[1] % LENGTHS] = time.monotonic_ns() - begun[phase].popleft()
        row[1] += 1

    def around(function: Callable[..., Any], phase: str, enters: bool = True, leaves: bool = True) -> Any:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            if enters:
                enter(phase)
            try:
                return function(*args, **options)
            finally:
                if leaves:
                    leave(phase)

        return run

    def between_steps() -> None:
        if begun["step"]:
            leave("step")

    def make_runner(*args: Any) -> Any:
        """A step lasts until the next one begins, or an evaluation."""
        runner = own_runner(*args)

        def compiled(step: Callable[..., Any]) -> Callable[..., Any]:
            compute = runner.compile(step)

            def run(state: Any, batch: Any) -> Any:
                between_steps()
                enter("step")
                return compute(state, batch)

            return run

        return runner._replace(compile=compiled)

    def make_validation(*args: Any) -> Callable[..., Any]:
        validate = around(own_validation(*args), "evaluation")

        def run(params: Any) -> Any:
            between_steps()
            return validate(params)

        return run

    own_runner, own_validation = train.make_runner, train.make_validation
    train.make_runner, train.make_validation = make_runner, make_validation
    prepare.prepare = around(prepare.prepare, "data preparation")
    prepare.train_tokenizer = around(prepare.train_tokenizer, "tokenizer training")
    prepare.tokenize_split = around(prepare.tokenize_split, "tokenizer training")
    for asked, done in (("save", "_finish"), ("amend", "_amend")):  # asked of one thread, done by another
        setattr(saving.Saver, asked, around(getattr(saving.Saver, asked), "save", leaves=False))
        setattr(saving.Saver, done, around(getattr(saving.Saver, done), "save", enters=False))
    PLANTS[plant](loop)
    sys.argv = ["seqlab", *arguments]
    main.main()


def forget_the_cursor(loop: Any) -> None:
    choose = loop.choose

    def forgetful(*args: Any) -> Any:
        step, position = choose(*args)
        return step, {**position, "index": 0}

    loop.choose = forgetful


def keep_the_log(loop: Any) -> None:
    logbook = loop.Logbook
    loop.Logbook = lambda run, step, *args, **options: logbook(run, step + STEPS, *args, **options)


def spoil_a_batch(loop: Any) -> None:
    batch_stream = loop.batch_stream

    def spoiled(*args: Any) -> Iterator[Any]:
        for epoch, index, batch in batch_stream(*args):
            bad = (epoch, index - 1) == SPOILED
            yield epoch, index, batch.replace(weights=batch.weights * np.float32("nan")) if bad else batch

    loop.batch_stream = spoiled


SPOILED = (0, 7)  # epoch and number of a batch
BUGS = {"cursor": forget_the_cursor, "log": keep_the_log}  # that torture must find
PLANTS = {"": lambda loop: None, **BUGS, "nan": spoil_a_batch}


# What it is compared by


# Of these files the names alone are compared: they tell of their folder, of names that Orbax draws, or are packed.
OTHERWISE = ("command.txt", manifest.MANIFEST, "*.array_record-*")


def evidence(home: Path) -> dict[str, str]:
    """What must be the same after a run that was killed as after a whole one, by name."""
    run, found = home / "run", {}
    for step in manifest.checkpoint_steps(run):
        found[f"fingerprint of step {step}"] = checkpoint.fingerprint(run, step)
        found[f"progress at step {step}"] = json.dumps(manifest.read_manifest(run, step)["progress"])
    for record in sorted((home / "data").rglob(RECORD)):
        facts = json.loads(record.read_text())
        data = Prepared(record.parent / VERSION, *(facts[name] for name in FACTS))
        for split in data.counts:
            found[f"examples of {record.parent.name}, {split}"] = digest(json.dumps(list(data.read(split))).encode())
    for path in sorted(path for folder in ("run", "data") for path in (home / folder).rglob("*") if path.is_file()):
        parts = path.relative_to(home).parts
        if not {"tensorboard", "state"} & set(parts):
            found["/".join(parts)] = "there" if any(map(path.match, OTHERWISE)) else digest(path.read_bytes())
    return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    return [name for name in {**expected, **found} if expected.get(name) != found.get(name)]


# Killing


TRAIN = ("train", "config.py", "--out", "run", "--data-dir", "data")


def environment(way: Way, folder: Path) -> dict[str, str]:
    """Of several processes JAX would keep compilations for the first alone, which would then wait for the others, and
    Gloo gives up after 30 s.
    """
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {
        **{name: value for name, value in os.environ.items() if name not in kept},
        **(kept if way.processes == 1 else {}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={way.devices} --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }


@contextlib.contextmanager
def begun(
    home: Path, way: Way, marks: Path, plant: str = "", options: Sequence[str] = ()
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes of one run, each in a group of its own; what is left of them at the end is killed."""
    command = [*TRAIN, *way.options, *options]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    with (home / "log.txt").open("ab") as log:
        try:
            for i in range(way.processes):
                own = marks.with_suffix(f".{i}")
                own.write_bytes(bytes(8 * len(PHASES) * (2 + LENGTHS)))
                place = ["--coordinator", f"localhost:{port}", "--processes", str(way.processes), "--process", str(i)]
                processes.append(
                    subprocess.Popen(
                        [
                            sys.executable,
                            __file__,
                            "--victim",
                            str(own),
                            plant,
                            *command,
                            *place * (way.processes > 1),
                        ],
                        cwd=home,
                        env=environment(way, marks.parent.parent),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
            yield processes
        finally:
            kill(processes)


def kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()


def read_marks(path: Path) -> np.ndarray:
    """[phases, 2 + LENGTHS], as the victim writes it."""
    return np.memmap(path, np.int64, "r+", shape=(len(PHASES), 2 + LENGTHS))


def lengths_of(marks: np.ndarray, phase: str) -> list[int]:
    """Nanoseconds."""
    row = marks[PHASES.index(phase)]
    return row[2 : 2 + min(row[1], LENGTHS)].tolist()


def under_way(marks: np.ndarray) -> list[str]:
    return [phase for phase, row in zip(PHASES, marks, strict=True) if row[0] > row[1]]


def aim(
    processes: Sequence[subprocess.Popen[bytes]],
    marks: np.ndarray,
    phase: str,
    nth: int,
    lengths: Sequence[int],
    rng: random.Random,
) -> bool:
    """Returns at a random instant in the nth time of a phase, or in a later one, and sooner, if that was shorter than
    `lengths` would have it; False: a process has ended first. Raises `Lost` where nothing happens for too long.
    """
    row, deadline, share = marks[PHASES.index(phase)], time.monotonic() + LONGEST, 1.0
    while all(process.poll() is None for process in processes):
        if row[0] >= nth and row[0] > row[1]:
            time.sleep(share * rng.random() ** 2 * rng.choice(lengths) / 1e9)
            if row[0] > row[1]:
                return True
            nth, share = int(row[0]) + 1, share / 2
        if time.monotonic() > deadline:
            raise Lost(f"no end after {LONGEST:.0f} s")
        time.sleep(0.0003)
    return False


def wait_for_end(home: Path, processes: Sequence[subprocess.Popen[bytes]], code: int = 0) -> None:
    """Raises `Lost` for another exit code."""
    deadline = time.monotonic() + LONGEST
    try:
        codes = {process.wait(max(deadline - time.monotonic(), 0.0)) for process in processes}
    except subprocess.TimeoutExpired:
        raise Lost(f"no end after {LONGEST:.0f} s") from None
    if codes != {code}:
        tail = (home / "log.txt").read_text(errors="replace").splitlines()[-5:]
        raise Lost(f"exit codes {sorted(codes)} and not {code}: {' | '.join(tail)}")


# A campaign


class Kill(NamedTuple):
    """A kill that was aimed at the phase `target`; phases `hit` were under way when the process died."""

    model: str
    way: str
    target: str
    hit: list[str]


class Campaign(NamedTuple):
    """The kills that one model survived and lost, why, and targets that were never hit."""

    survived: list[Kill]
    lost: list[Kill]
    reasons: list[str]
    missed: list[str]


class Whole(NamedTuple):
    """An uninterrupted run: its last step, and what came of it; of each phase how often it came, and how many
    nanoseconds it took.
    """

    steps: int
    evidence: dict[str, str]
    times: dict[str, int]
    lengths: dict[str, list[int]]


def make_home(home: Path, name: str, documents: Path) -> None:
    home.mkdir(parents=True)
    code = f"from torture import experiment_of\n\nexperiment = experiment_of({name!r}, {str(documents)!r})\n"
    (home / "config.py").write_text(code)


def run_whole(home: Path, way: Way) -> Whole:
    marks = home.parent / "whole.marks"
    with begun(home, way, marks) as processes:
        wait_for_end(home, processes)
    found = read_marks(marks.with_suffix(".0"))
    times = {phase: int(row[0]) for phase, row in zip(PHASES, found, strict=True)}
    lengths = {phase: lengths_of(found, phase) for phase in PHASES}
    return Whole(manifest.checkpoint_steps(home / "run")[-1], evidence(home), times, lengths)


def campaign(
    name: str,
    way_name: str,
    targets: Sequence[str],
    folder: Path,
    rng: random.Random,
    bug: str,
    say: Callable[[str], None],
) -> Campaign:
    """Kills runs of a model, once in each of `targets`, and lets them end."""
    way, documents = WAYS[way_name], folder / "documents"
    place = folder / f"{name}, {way_name}"
    make_home(place / "whole", name, documents)
    whole = run_whole(place / "whole", way)
    lengths = dict(whole.lengths)
    pending: list[Kill] = []
    done = Campaign([], [], [], [])
    attempts = 0

    def fresh() -> Path:
        nonlocal attempts
        attempts += 1
        home = place / f"killed-{attempts}"
        make_home(home, name, documents)
        return home

    def settle(home: Path, ended: Callable[[], None]) -> None:
        """Compares a run that has ended; if it is not lost, it is removed."""
        try:
            ended()
            changed = differences(whole.evidence, evidence(home))
            if changed:
                raise Lost(", ".join(changed))
        except Lost as lost:
            say(f"LOST {home} after {len(pending)} kills: {lost}")
            done.lost.extend(pending)
            done.reasons.append(f"{home}: {lost}")
        else:
            say(f"{name}, {way_name}: the same end after {len(pending)} kills")
            done.survived.extend(pending)
            shutil.rmtree(home)
        pending.clear()

    home, marks = fresh(), place / "killed.marks"
    for target in targets:
        for _ in range(TRIES):
            steps = manifest.checkpoint_steps(home / "run")
            left = 1 - (steps[-1] if steps else 0) / whole.steps
            nth = rng.randint(1, max(round(whole.times[target] * left) - 1, 1))
            with begun(home, way, marks, bug) as processes:
                now = read_marks(marks.with_suffix(".0"))
                if aim(processes, now, target, nth, lengths[target], rng):
                    kill(processes)
                    if processes[0].returncode == -signal.SIGKILL:
                        pending.append(Kill(name, way_name, target, under_way(now)))
                        say(f"{name}, {way_name}: killed in {' and '.join(under_way(now)) or 'nothing'}, {steps}")
                        if target in under_way(now):
                            break
                        continue
                settle(home, functools.partial(wait_for_end, home, processes))
                lengths[target] = lengths_of(now, target) or lengths[target]  # this time it was quicker
                home = fresh()
        else:
            done.missed.append(target)
            say(f"{name}, {way_name}: {target} was not hit")
    with begun(home, way, marks, bug) as processes:
        settle(home, functools.partial(wait_for_end, home, processes))
    if not done.reasons:
        shutil.rmtree(place)
    return done


def deal(kills: int, names: Sequence[str], rng: random.Random) -> dict[str, list[str]]:
    """Phases in which the runs of each model are killed, as many of each; the earlier phases first, for they come but
    once in a run.
    """
    dealt: dict[str, list[str]] = {name: [] for name in names}
    for i in range(kills):
        dealt[names[i % len(names)]].append(PHASES[i % len(PHASES)])
    for name, targets in dealt.items():
        once = sorted((one for one in targets if one in PHASES[:2]), key=PHASES.index)
        later = [one for one in targets if one not in PHASES[:2]]
        dealt[name] = once + rng.sample(later, len(later))
    return dealt


def table(found: dict[str, Campaign]) -> Iterator[str]:
    """Kills by phase and by model, in lines of Markdown. A kill counts for each phase that was under way."""
    survived = [kill for one in found.values() for kill in one.survived]
    lost = [kill for one in found.values() for kill in one.lost]
    yield "| phase | kills aimed at it | kills while it was under way | survived | lost |"
    yield "|---|---|---|---|---|"
    for phase in PHASES:
        ours, theirs = (sum(phase in kill.hit for kill in kills) for kills in (survived, lost))
        aimed = sum(kill.target == phase for kill in survived + lost)
        yield f"| {phase} | {aimed} | {ours + theirs} | {ours} | {theirs} |"
    yield f"| all | {len(survived + lost)} | {len(survived + lost)} | {len(survived)} | {len(lost)} |"
    yield ""
    yield "| model, way | kills | survived | lost |"
    yield "|---|---|---|---|"
    for name, one in found.items():
        yield f"| {name} | {len(one.survived) + len(one.lost)} | {len(one.survived)} | {len(one.lost)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """1: a run was lost, or a phase not hit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="MODEL", choices=catalogue.names("models"))
    parser.add_argument(
        "--folder", type=Path, help="where runs are; a new one by default, removed if nothing is lost"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--bug", choices=list(BUGS), default="", metavar="|".join(BUGS), help="plants one, which must be found"
    )
    given = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    write_documents(folder / "documents")
    rng = random.Random(given.seed)
    names = given.only or catalogue.names("models")
    found: dict[str, Campaign] = {}
    started = time.monotonic()
    for i, (name, targets) in enumerate(deal(given.kills, names, rng).items()):
        way = list(WAYS)[(i + given.seed) % len(WAYS)]
        found[f"{name}, {way}"] = campaign(
            name, way, targets, folder, rng, given.bug, functools.partial(print, flush=True)
        )
    print("\n".join(table(found)))
    print(f"\nseed {given.seed}, {(time.monotonic() - started) / 60:.1f} minutes")
    if given.json:
        given.json.write_text(json.dumps({name: one._asdict() for name, one in found.items()}, indent=1))
    reasons = [reason for one in found.values() for reason in one.reasons]
    print("\n".join(f"LOST {reason}" for reason in reasons))
    if not reasons and given.folder is None:
        shutil.rmtree(folder)
    return 1 if reasons or any(one.missed for one in found.values()) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--victim"]:
        victim(read_marks(Path(sys.argv[2])), sys.argv[3], sys.argv[4:])
    else:
        sys.exit(main())
