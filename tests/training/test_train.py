"""The training loop and the command, on a tiny experiment that is trained once for all tests of the file."""

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import seqlab
from seqlab.data.batches import make_batch
from seqlab.data.records import prepare
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import checkpoint, loading, manifest
from seqlab.system.errors import SeqlabError
from seqlab.system.files import locked
from seqlab.training import train as train_module
from seqlab.training.feed import stream_batches
from seqlab.training.prepare import plan_batches, prepare_experiment
from seqlab.training.train import train
from tests.command import call

ROOT = Path(__file__).parents[2]
CONFIG = """
import dataclasses
from seqlab.laws.training import tiny_experiment
from seqlab.config import Validation
experiment = dataclasses.replace(tiny_experiment(), steps=4, validation=Validation(every=2, examples=3, beam=1))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a config, a data root, and a run that the command has trained."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.py").write_text(CONFIG)
    assert call(home, "train", "tiny.py", "--out", "run", "--data-dir", "data") == 0
    assert call(home, "average", "run", "--last", "2") == 0
    (home / "own.model").write_bytes(tiny_tokenizer().model)
    return home


def test_what_a_run_holds(home):
    run = home / "run"
    assert manifest.checkpoint_steps(run) == [2, 4]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 4]
    assert {"loss", "perplexity", "learning rate"} <= lines[1].keys()
    assert {"validation loss", "validation bleu", "validation accuracy"} <= lines[0].keys()
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").glob("events*"))
    assert not list(run.glob("*.part"))
    command = f"cd {home.resolve()} && seqlab train tiny.py --out run --data-dir data"
    assert (run / "command.txt").read_text() == command + "\n"


def test_the_same_command_again_does_nothing(home, capsys):
    fingerprint = checkpoint.fingerprint(home / "run", 4)
    assert call(home, "train", "tiny.py", "--out", "run", "--data-dir", "data") == 0
    assert "is already trained: 4 steps" in capsys.readouterr().out
    assert checkpoint.fingerprint(home / "run", 4) == fingerprint


def test_another_config_is_refused(home, capsys):
    assert call(home, "train", "tiny.py", "--out", "run", "--data-dir", "data", "--seed", "9") == 2
    error = capsys.readouterr().err
    assert "seed: 0 in the run, 9 in this command" in error
    assert "--init-from" in error


def test_init_from(home, capsys):
    arguments = ("train", "tiny.py", "--data-dir", "data", "--init-from", "run", "--steps", "1")
    assert call(home, *arguments, "--out", "again", "--schedule.peak", "0.0") == 0
    best = manifest.choose_step(home / "run")
    parent, child = (checkpoint.restore(home / run, step)["params"] for run, step in (("run", best), ("again", 1)))
    leaves = zip(*(catalogue_leaves(tree) for tree in (parent, child)), strict=True)
    assert all(np.array_equal(a, b) for a, b in leaves)
    assert call(home, *arguments, "--out", "other", "--model.dim", "16") == 2
    assert "has a different model" in capsys.readouterr().err


def catalogue_leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_evaluate(home, capsys):
    assert call(home, "evaluate", "run", "--data-dir", "data", "--json", "--beam", "2", "--output", "texts") == 0
    report = json.loads(capsys.readouterr().out)
    scores = {score["name"]: score for score in report["scores"]}
    metrics = {"BLEU", "chrF2", "TER", "exact match"}
    forced_metrics = {"perplexity", "perplexity by word", "bits by character", "accuracy"}
    assert {*forced_metrics, *metrics, *(f"{name} (copied source)" for name in metrics)} == scores.keys()
    assert "|p:" in scores["exact match (copied source)"]["signature"]
    assert report["data"]["sha256"] == prepare(tiny_experiment().data, home / "data").hashes["test"]
    assert (report["split"], report["lines"], report["search"]["beam"], report["changed"]) == ("test", 6, 2, [])
    prepared = prepare(tiny_experiment().data, home / "data")
    (home / "references").write_text("".join(example["target"] + "\n" for example in prepared.read("test")))
    assert call(home, "score", "texts", "--references", "references", "--metrics", "bleu", "--json") == 0
    (bleu,) = json.loads(capsys.readouterr().out)["scores"]
    assert bleu == scores["BLEU"]


def test_check(home, capsys):
    assert call(home, "check", "run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines][:3] == ["padding-inert", "rows independent", "causal"]
    assert all(" yes" in line for line in lines)
    assert "largest difference" in next(line for line in lines if line.startswith("step against forward"))
    assert call(home, "check", "tiny.py", "--json") == 0
    assert {law["holds"] for law in json.loads(capsys.readouterr().out)} == {True}


def test_fingerprint_and_average(home, capsys):
    assert call(home, "fingerprint", "run", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"step": 4, "sha256": checkpoint.fingerprint(home / "run", 4)}
    averaged = seqlab.load(home / "run-average")
    assert averaged.translate(["3 hours"], max_length=3)
    assert call(home, "average", "run", "--last", "2") == 2
    assert "run-average already exists" in capsys.readouterr().err
    assert call(home / "run", "average", ".", "--last", "2") == 2
    assert "run-average already exists" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["models", "encoders", "readers", "codecs", "tasks", "datasets", "metrics"])
def test_list(home, capsys, kind):
    assert call(home, "list", kind, "--json") == 0
    descriptions = json.loads(capsys.readouterr().out)
    assert descriptions
    assert all(descriptions.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian': did you mean 'train'"),
        (["train", "nope.py", "--out", "x"], "the config nope.py does not exist"),
        (["train", "--out", "x"], "CONFIG must come first"),
        (["train", "tiny.py", "--out", "x", "--model.heads", "3"], "must be divisible by the number of heads, 3"),
        (["train", "tiny.py", "--out", "x", "--optimizer.name", "lion"], "optimizer.name must be one of"),
        (["train", "tiny.py", "--out", "x", "--schedule.name", "up"], "schedule.name must be one of"),
        (["train", "tiny.py", "--out", "x", "--parallel.name", "threads"], "parallel.name must be one of"),
        (["train", "tiny.py", "--out", "x", "--steps", "0"], "steps must be between 1 and 2147483647, not 0"),
        (["train", "tiny.py", "--out", "x", "--validation.metric", "blue"], "validation.metric 'blue'"),
        (["train", "tiny.py", "--out", "x", "--text.size", "20"], "text.size must be at least 300, not 20"),
        (
            [
                "train",
                "tiny.py",
                "--out",
                "x",
                "--search.beam",
                "6",
                "--search.groups",
                "3",
                "--validation.beam",
                "4",
            ],
            "validation.beam 4: beam must be a multiple of groups: 4 is not a multiple of 3",
        ),
        (["train", "tiny.py", "--out", "x", "--data.pair", "en-xx"], "unknown locale 'xx'"),
        (["train", "tiny.py", "--out", "x", "--tokenizer", "none.model"], "--tokenizer none.model does not exist"),
        (["train", "tiny.py", "--out", "tiny.py"], "exists but is not a run"),
        (["train", "tiny.py", "--out", "x", "--model.heads", "0"], "must be divisible by the number of heads, 0"),
        (["train", "tiny.py", "--out", "x", "--model.hidden", "-1"], "check the sizes of the model"),
        (["train", "tiny.py", "--out", "x", "--model.dtype", "bf16"], "dtype must be 'float32' or 'bfloat16'"),
        (["train", "tiny.py", "--out", "x", "--model.dtype", "int32"], "dtype must be 'float32' or 'bfloat16'"),
        (["train", "tiny.py", "--out", "x", "--model.dropout", "1.5"], "dropout rates must be between 0 and 0.998"),
        (["train", "tiny.py", "--out", "x", "--checkpoints.last", "0"], "checkpoints.last must be at least 1, not 0"),
        (["train", "tiny.py", "--out", "x", "--coordinator", "here:99999"], "a PORT from 1 to 65535, or auto, not"),
        (["train", "tiny.py", "--out", "x", "--seed", "-1"], "seed must be between 0 and 4294967295, not -1"),
        (
            ["train", "tiny.py", "--out", "x", "--seed", "99999999999999999999"],
            "seed is out of range: it must fit into a signed 64-bit integer",
        ),
        (["train", "tiny.py", "--out", "x", "--steps", "2147483648"], "steps must be between 1 and 2147483647"),
        (["train", "tiny.py", "--out", "x", "--tokenizer", "tiny.py"], "tiny.py: not a SentencePiece model"),
        (["train", "tiny.py", "--out", "x", "--optimizer.clip", "-1"], "optimizer.clip must be at least 0"),
        (["train", "tiny.py", "--out", "x", "--text.no-joint"], "needs one joint vocabulary"),
        (["train", "tiny.py", "--out", "run-average"], "has averaged parameters"),
        (["train", "tiny.py", "--out", "run", "--tokenizer", "own.model"], "has a different tokenizer"),
        (
            ["evaluate", "run", "--data-dir", "data", "--output", "no/dir/f"],
            "because the folder no/dir does not exist",
        ),
        (
            ["decode", "run", "--input", "tiny.py", "--output", "data"],
            "data is a folder, not a file: choose another output",
        ),
        (["decode", "nowhere"], "nowhere is not a run"),
        (["decode", "run", "--checkpoint", "99"], "no checkpoint '99': choose best, last or a step (2, 4)"),
        (["decode", "run", "--input", "missing.txt"], "--input missing.txt: no such file: check the path"),
        (
            ["decode", "run", "--output", "no/folder/out", "--input", "tiny.py"],
            "because the folder no/folder does not exist",
        ),
        (["decode", "run", "--beam", "0", "--input", "tiny.py"], "beam must be at least 1, not 0"),
        (["decode", "run", "--input", "tiny.py", "--lm", "run"], "run is not a language model"),
        (
            ["decode", "run", "--input", "tiny.py", "--ensemble", "run", "--mean", "x"],
            "probabilities, log_probabilities",
        ),
        (
            ["decode", "run", "--input", "tiny.py", "--top-p", "0.5"],
            "top_p needs samples: give a seed, such as --sample 1",
        ),
        (["decode", "run", "--input", "tiny.py", "--sample", "-1"], "sample must be a seed from 0 to"),
        (["logprob", "run", "--target", "tiny.py"], "Translation needs source texts: give --input FILE"),
        (["logprob", "run", "--target", "tiny.py", "--input", "tiny.py", "--output", "tiny.py"], "tiny.py"),
        (["logprob", "run", "--target", "own.model", "--input", "tiny.py"], "own.model"),
        (
            ["logprob", "run", "--target", "tiny.py", "--input", "run/metrics.jsonl"],
            "the numbers of sources and targets differ",
        ),
        (
            ["decode", "run", "--preset", "sockeye", "--input", "tiny.py"],
            "preset must be one of seqlab, gnmt, fairseq",
        ),
        (["decode", "run", "--length", "log", "--input", "tiny.py"], "length must be one of none, gnmt, power"),
        (["decode", "run", "--stop", "now", "--input", "tiny.py"], "stop must be one of optimal, first"),
        (
            ["decode", "run", "--min-length", "9", "--max-length", "5", "--input", "tiny.py"],
            "min_length 9 is above max_length 5",
        ),
        (["decode", "run", "--repetition", "0", "--input", "tiny.py"], "repetition must be above 0"),
        (["decode", "run", "--no-repeat", "-1", "--input", "tiny.py"], "no_repeat must be at least 0"),
        (["decode", "run", "--forbid", "a b", "--input", "tiny.py"], "'a b' is 3 tokens in this vocabulary"),
        (["decode", "run", "--nbest", "9", "--input", "tiny.py"], "--nbest 9 needs --beam 9"),
        (["evaluate", "run", "--split", "tset", "--data-dir", "data"], "no split 'tset': the splits are train"),
        (["score", "tiny.py", "--references", "tiny.py", "--metrics", "blue"], "unknown metric"),
        (["score", "none", "--references", "tiny.py", "--metrics", "bleu"], "none does not exist"),
        (["prepare", "multi40k/en-de"], "did you mean 'multi30k'"),
        (["prepare", "multi30k/en-de", "--data-dir", "data"], "--folder DIR"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(home, capsys, arguments, message):
    if arguments[0] == "train" and "--data-dir" not in arguments:
        arguments = [*arguments, "--data-dir", "data"]
    assert call(home, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (home / "x" / "checkpoints").exists()


def test_a_port_that_is_taken(home, capsys):
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        listener.listen()
        address = f"localhost:{listener.getsockname()[1]}"
        options = ("--coordinator", address, "--processes", "2", "--process", "0")
        assert call(home, "train", "tiny.py", "--out", "x", *options) == 2
    port = address.partition(":")[2]
    message = f"--coordinator {address}: this process, process 0, cannot listen on port {port} (address already"
    assert message in capsys.readouterr().err


def test_a_typo_names_the_nearest_option(home, capsys):
    assert call(home, "train", "tiny.py", "--out", "x", "--model.dmi", "16") == 2
    printed = capsys.readouterr()
    assert "--model.dim" in printed.out + printed.err


def test_a_loss_that_is_not_finite(tmp_path):
    experiment = dataclasses.replace(
        tiny_experiment(),
        schedule=dataclasses.replace(tiny_experiment().schedule, name="constant", peak=1e38, warmup=0),
        optimizer=dataclasses.replace(tiny_experiment().optimizer, name="sgd", clip=0.0),
    )
    with pytest.raises(
        SeqlabError,
        match=r"step \d is not finite \(epoch 0, batch \d; seqlab show-batch .*\); there is no checkpoint",
    ):
        train(experiment, tmp_path / "run", tmp_path / "data", say=lambda line: None)
    assert manifest.checkpoint_steps(tmp_path / "run") == []


def test_other_data_under_a_run_is_seen(home, capsys):
    record = home / "run" / "data.json"
    content = record.read_text()
    record.write_text(content.replace(json.loads(content)["train"], "0" * 64))
    assert call(home, "train", "tiny.py", "--out", "run", "--data-dir", "data") == 2
    assert "data of run has changed" in capsys.readouterr().err
    assert call(home, "evaluate", "run", "--data-dir", "data", "--beam", "2") == 0
    assert "data: changed since the run was trained: train\n" in capsys.readouterr().out
    record.write_text(content)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("source.values", lambda ids: ids ^ (1 << 30), "source.values: an id is outside the vocabulary"),
        ("target.values", lambda ids: ids | -(1 << 31), "target.values: an id is outside the vocabulary"),
        ("target.offsets", lambda at: np.where(at > 0, at[-1], 0), "positions does not fit into"),
        ("plan-*/arrays", lambda members: members ^ (members == members[3]), ": damaged plan; remove it"),
        ("plan-*/plan.json", lambda content: content[: len(content) // 2], ": damaged plan; remove it"),
    ],
)
def test_damaged_caches_are_one_line(home, capsys, file, change, message):
    """This includes damage that is found in the threads that make batches."""
    shutil.rmtree(home / "damaged", ignore_errors=True)
    shutil.copytree(home / "data", home / "damaged")
    (path,) = (home / "damaged" / "cache").glob(f"{training_ids(home)}/{file}")
    kind = {".values": "<i4", ".json": "u1"}.get(path.suffix, "<i8")
    change(np.fromfile(path, kind)).astype(kind).tofile(path)
    assert call(home, "train", "tiny.py", "--out", "x", "--data-dir", "damaged") == 2
    error = capsys.readouterr().err
    assert (message in error, "and it will be rebuilt" in error, error.count("\n")) == (True, True, 1)
    assert f"damaged/cache/{training_ids(home)}" in error
    shutil.rmtree(home / "x", ignore_errors=True)


def training_ids(home):
    """Returns the name of the folder of the largest cached split."""
    return max((home / "data" / "cache").glob("*/source.offsets"), key=lambda path: path.stat().st_size).parent.name


def test_damaged_vocabularies_that_are_kept(home, capsys):
    shutil.rmtree(home / "damaged", ignore_errors=True)
    shutil.copytree(home / "data", home / "damaged")
    vocabularies = {path: path.read_bytes() for path in (home / "damaged" / "cache").glob("made-*")}
    for change in (
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"<0x0A>", b"<0x0B>", 1),
    ):
        for path, content in vocabularies.items():
            path.write_bytes(change(content))
        assert call(home, "train", "tiny.py", "--out", "x", "--data-dir", "damaged") == 2
        error = capsys.readouterr().err
        assert error.startswith("seqlab: damaged/cache/made-")
        assert (error.endswith("; remove it, and it will be rebuilt\n"), error.count("\n")) == (True, 1)
    shutil.rmtree(home / "x", ignore_errors=True)


def changed_tokenizer(run, content):
    """Returns another valid SentencePiece model."""
    return tiny_tokenizer().model


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("codecs/source+target.sentencepiece", changed_tokenizer),
        ("codecs/source+target.sentencepiece", lambda run, content: content[: len(content) // 2]),
        ("codecs/source+target.sentencepiece", lambda run, content: None),
        ("codecs/target.sentencepiece", changed_tokenizer),
        ("experiment.json", lambda run, content: content[: len(content) // 2]),
        ("data.json", lambda run, content: content[: len(content) // 2]),
        ("data.json", lambda run, content: b'{"train": 1}'),
    ],
)
def test_damaged_files_of_a_run(home, capsys, file, change):
    shutil.rmtree(home / "hurt", ignore_errors=True)
    path = Path(shutil.copytree(home / "run", home / "hurt")) / file
    content = change(path.parent, path.read_bytes() if path.exists() else b"")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for command in (["train", "tiny.py", "--out"], ["evaluate"]):
        assert call(home, *command, "hurt", "--data-dir", "data") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"seqlab: hurt/{file}")
        assert "; restore it from a backup, or start a new run with another --out\n" in error
        assert error.count("\n") == 1


def test_a_run_without_hashes_of_its_codecs(home, capsys):
    """An older run can resume."""
    shutil.rmtree(home / "older", ignore_errors=True)
    record = Path(shutil.copytree(home / "run", home / "older")) / "data.json"
    hashes = json.loads(record.read_text())
    assert set(hashes) == {"train", "validation", "test", "codecs/source+target.sentencepiece"}
    record.write_text(json.dumps({name: hashes[name] for name in ("train", "validation", "test")}))
    assert call(home, "train", "tiny.py", "--out", "older", "--data-dir", "data") == 0
    assert "is already trained: 4 steps" in capsys.readouterr().out


def test_a_damaged_id_is_seen_in_the_threads(tmp_path):
    """The loop raises the error of a Grain thread."""
    experiment, _, codecs, corpus = prepare_experiment(tiny_experiment(), tmp_path, tmp_path / "run", say=str)
    plan = plan_batches(experiment, corpus, str)
    last = plan.batches(experiment.seed, 0)[-1].indices[0]
    ids = corpus.values["source"].copy()
    ids[corpus.offsets["source"][last]] = codecs["source"].size
    corpus = dataclasses.replace(corpus, values={**corpus.values, "source": ids})

    def collate(batch_plan, epoch):
        return make_batch(experiment.task, corpus, codecs, batch_plan)

    stream = stream_batches(plan, experiment.seed, collate, 0, 0)
    with pytest.raises(SeqlabError, match=r"source\.values: an id is outside") as caught:
        for _ in range(len(plan.batches(experiment.seed, 0))):
            next(stream)
    assert "\n" not in str(caught.value)


def test_two_processes_on_one_run(home, capsys):
    with locked(home / "run" / ".lock"):
        assert call(home, "train", "tiny.py", "--out", "run", "--data-dir", "data") == 2
    assert "another process is training run" in capsys.readouterr().err


def test_learned_positions_bound_decoding(tmp_path, capsys):
    """The search rounds lengths up and doubles them, but not beyond the number of positions. Long lines are cut."""
    experiment = tiny_experiment()
    experiment = dataclasses.replace(
        experiment,
        model=experiment.model.clone(positions="learned", max_length=50),
        batching=dataclasses.replace(experiment.batching, max_length=50),
        steps=1,
        validation=dataclasses.replace(experiment.validation, beam=1),
    )
    train(experiment, tmp_path / "run", tmp_path / "data", say=lambda line: None)
    run = loading.load(tmp_path / "run")
    assert len(run.translate(["a" * 40], max_length=500)) == 1
    texts, warnings = run.write(["a", "ab" * 300, "ab" * 24 + "a"])[1:], capsys.readouterr().err
    assert texts[0] == texts[1]
    assert re.search(r"^seqlab: line 2 has \d+ tokens and is truncated to 50: abab", warnings, re.MULTILINE)


def test_stopping_early(tmp_path):
    experiment = tiny_experiment()
    experiment = dataclasses.replace(
        experiment,
        schedule=dataclasses.replace(experiment.schedule, peak=1e-12),
        optimizer=dataclasses.replace(experiment.optimizer, name="sgd"),
        validation=dataclasses.replace(experiment.validation, every=1, patience=2),
    )
    messages = []
    train(experiment, tmp_path / "run", tmp_path / "data", say=messages.append)
    assert any("stopping early: 2 validation(s) brought no improvement" in line for line in messages)
    assert manifest.checkpoint_steps(tmp_path / "run")[-1] < experiment.steps
    train(experiment, tmp_path / "run", tmp_path / "data", say=messages.append)
    assert "stopped early at step" in messages[-1]
    assert "raise --validation.patience" in messages[-1]
    patient = dataclasses.replace(experiment, validation=dataclasses.replace(experiment.validation, patience=99))
    train(patient, tmp_path / "run", tmp_path / "data", say=messages.append)
    assert manifest.checkpoint_steps(tmp_path / "run")[-1] == experiment.steps
    train(patient, tmp_path / "run", tmp_path / "data", say=messages.append)
    assert "is already trained" in messages[-1]


def test_one_compilation_a_bucket(tmp_path, monkeypatch):
    """Three buckets need three compilations of the step, despite two epochs, logs, validations and checkpoints."""
    compiled = []
    make = train_module.make_runner

    def watched(*arguments):
        runner = make(*arguments)
        return runner._replace(compile=lambda step: compiled.append(runner.compile(step)) or compiled[-1])

    monkeypatch.setattr(train_module, "make_runner", watched)
    experiment = tiny_experiment()
    experiment = dataclasses.replace(
        experiment,
        log_every=2,
        batching=dataclasses.replace(experiment.batching, buckets=3),
        validation=dataclasses.replace(experiment.validation, every=3),
    )
    messages = []
    train(experiment, tmp_path / "run", tmp_path / "data", say=messages.append)
    buckets = sum(line.startswith("bucket") for line in messages)
    batches = next(int(line.split()[0]) for line in messages if "batches per epoch" in line)
    assert (buckets, batches < experiment.steps) == (3, True)
    (step,) = compiled
    assert step._cache_size() == 3


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['seqlab', '--help']; from seqlab.cli.main import main; main(); "
    heavy = run_python(code + "print({'jax', 'numpy', 'flax', 'tensorflow_datasets'} & set(sys.modules))")
    assert heavy.splitlines()[-1] == "set()"


def test_everything_imports_without_tensorflow():
    code = """
import importlib, pkgutil, sys
sys.modules["tensorflow"] = None
import seqlab
for module in pkgutil.walk_packages(seqlab.__path__, "seqlab."):
    importlib.import_module(module.name)
import tensorflow_datasets
print("ok")
"""
    assert run_python(code).splitlines()[-1] == "ok"


@pytest.mark.long
@pytest.mark.parametrize("wait", [2.0, 5.0])
def test_kill_9(tmp_path, wait):
    """A process is killed during training, and the same command then ends with the fingerprint of a whole run."""
    (tmp_path / "tiny.py").write_text(CONFIG.replace("steps=4", "steps=300").replace("every=2", "every=30"))
    command = [sys.executable, "-m", "seqlab.cli", "train", "tiny.py", "--data-dir", "data", "--out"]
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "whole"], cwd=tmp_path, env=environment, check=True)
    process = subprocess.Popen([*command, "cut"], cwd=tmp_path, env=environment)
    while not manifest.checkpoint_steps(tmp_path / "cut"):
        time.sleep(0.05)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < manifest.checkpoint_steps(tmp_path / "cut")[-1] < 300
    subprocess.run([*command, "cut"], cwd=tmp_path, env=environment, check=True)
    prints = [checkpoint.fingerprint(tmp_path / name, 300) for name in ("whole", "cut")]
    assert prints[0] == prints[1]
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "cut/metrics.jsonl").read_text()
