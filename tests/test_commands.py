"""Conventions of commands and of the Python API: options have an effect or are refused, malformed input gives one
error, and no work is lost.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import seqlab
from seqlab import catalogue
from seqlab.config import Search, Validation
from seqlab.datasets.local_files import LocalFiles
from seqlab.decoding.requests import Lines, requests_of
from seqlab.decoding.windows import windows_of
from seqlab.laws.certificate import certificate
from seqlab.laws.subject import models_with
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import manifest
from seqlab.system import parts
from seqlab.system.errors import SeqlabError
from seqlab.training.schedule import make_schedule
from seqlab.training.train import train
from tests.command import call, save_untrained

LINES = ["3 hours", "a b c", "xyz yz 1 2 3", "b", "c 7", "1 2"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with an untrained run of a translation model and one of a language model."""
    home = tmp_path_factory.mktemp("home")
    codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
    save_untrained(tiny_experiment(), codecs, home / "run")
    task = catalogue.part_class("tasks", "language_modeling")()
    model = catalogue.without_sizes(catalogue.module("models", "transformer_lm").TINY)
    experiment = dataclasses.replace(tiny_experiment(), model=model, task=task)
    save_untrained(experiment, {"target": tiny_tokenizer()}, home / "lm")
    (home / "in.txt").write_text("a\n")
    return home


@pytest.fixture(scope="module")
def run(home):
    return seqlab.load(home / "run")


@pytest.fixture(scope="module")
def short_run(run):
    """The run with nine likely tokens, EOS among them, so that some texts end early."""
    size, random = run.codecs["target"].size, np.random.default_rng(10)
    factors = np.zeros((size, 1), np.float32)
    factors[[run.codecs["target"].eos, *random.integers(3, size, 8)]] = 6.0
    params = jax.tree.map(lambda x: x * factors if x.shape[:1] == (size,) else x, run.params)
    return run._replace(params=params)


def written(run, **options):
    """Returns all texts with their scores, to the printed digits."""
    results = run.write(LINES, nbest=options["beam"], **{"max_length": 12, **options})
    return [(text.text, f"{text.score:.4f}") for best in results for text in best]


METHODS = {
    "greedy": {"beam": 1},
    "beam": {"beam": 3, "alpha": 1.5},
    "marian": {"beam": 3, "preset": "marian"},
    "hf of one": {"beam": 1, "preset": "hf"},
    "samples": {"beam": 3, "sample": 5},
}
OPTIONS = {
    "length": "none",
    "alpha": 1.7,
    "word_penalty": 0.3,
    "coverage": 0.5,
    "groups": 3,
    "diversity": 2.0,
    "stop": "first",
    "max_length": 4,
    "max_ratio": 0.5,
    "min_length": 11,
    "min_ratio": 3.0,
    "no_repeat": 1,
    "repetition": 3.0,
    "forbid": ("FIRST",),
    "temperature": 0.2,
    "top_k": 2,
    "top_p": 0.1,
    "risk": "chrf",
}
SAME = {  # options that cannot change a text or a score
    "greedy": ["stop"],  # a beam of one finishes with its first text
    "hf of one": ["stop"],
    "marian": ["length"],  # its alpha is 0
}


@pytest.mark.parametrize("method", METHODS)
def test_every_option_has_its_effect_or_is_refused(short_run, method):
    plain, target = written(short_run, **METHODS[method]), short_run.codecs["target"]
    texts = [best[0].ids for best in short_run.write(LINES, max_length=12, **METHODS[method])]
    word = next(target.names[i] for ids in texts for i in ids if i > 3).replace("\u2581", "")
    without_effect = []
    for option, value in {**OPTIONS, "forbid": (word,)}.items():
        try:
            changed = written(short_run, **METHODS[method] | {option: value})
        except SeqlabError as error:
            assert option in str(error), error
        else:
            without_effect += [option] if changed == plain else []
    assert without_effect == SAME.get(method, [])


def test_greedy_scores_follow_the_length_penalty(run):
    """Scores of greedy search are log-probabilities divided by the length penalty, as in beam search."""
    for length, divisor in (("none", 1.0), ("power", None), ("gnmt", None)):
        for (best,) in run.write(LINES, beam=1, length=length, max_length=12):
            n = len(best.ids)
            expected = divisor or (n**0.6 if length == "power" else ((5 + n) / 6) ** 0.6)
            assert best.score == pytest.approx(best.log_prob / expected, rel=1e-5)


@pytest.mark.parametrize("options", [{"beam": 1}, {"beam": 4}, {"beam": 4, "sample": 3}])
def test_special_tokens_are_never_written(run, options):
    """Special tokens are not targets of training, and a text that is read back must have the score of the search."""
    target = run.codecs["target"]
    for best in run.write(LINES * 4, max_length=12, nbest=options["beam"], **options):
        for text in best:
            assert not {target.pad, target.bos} & {*text.ids}


def test_a_stated_minimum_wins_over_a_default_maximum(run):
    limits = [len(best[0].ids) for best in run.write(["a"], beam=1, min_length=40)]
    assert limits[0] >= 40
    (request,) = requests_of(run.trained, Lines(["a"]), [0], Search(min_length=40), print)
    assert request.limit == request.minimum == 40
    (request,) = requests_of(run.trained, Lines(["a"]), [0], Search(min_length=4, max_ratio=0.5), print)
    assert request.minimum == request.limit == 1


def test_ratios_need_a_source(home):
    with pytest.raises(SeqlabError, match="max_ratio and min_ratio are multiples of the length of a source"):
        seqlab.load(home / "lm").translate(["a"], max_ratio=2.0)


def test_an_empty_prompt_is_the_beginning_of_a_text(home, capsys):
    assert call(home, "decode", "lm", "--sample", "1", "--beam", "1", "--max-length", "8", stdin="\na\n") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first
    assert second.startswith("a")


def test_line_ends_are_no_part_of_a_line(run):
    assert run.translate(["3 hours\n", "3 hours\r\n", "3 hours"], beam=2) == run.translate(["3 hours"], beam=2) * 3


@pytest.mark.parametrize("lines", [None, b"bytes", "one string", 3, [None], [b"x"], ["a", 3]])
def test_lines_of_another_type(run, lines):
    with pytest.raises(SeqlabError, match="lines must be"):
        run.translate(lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": "5"}, "search.beam must be of type int, not '5'"),
        ({"beam": 2.0}, "search.beam must be of type int, not 2.0"),
        ({"beem": 5}, "unknown search option 'beem': did you mean 'beam'"),
        ({"alpha": "x"}, "search.alpha must be of type"),
        ({"forbid": "x"}, "search.forbid must be of type"),
    ],
)
def test_options_of_another_type(run, options, message):
    with pytest.raises(SeqlabError, match=message):
        run.translate(["a"], **options)
    with pytest.raises(SeqlabError, match="nbest must be an integer"):
        run.write(["a"], nbest="2")


def test_what_options_may_be(run):
    """Options accept any iterable of lines, NumPy numbers, and lists in place of tuples."""
    expected = run.translate(["a b"], beam=2, forbid=("x",))
    assert run.translate((line for line in ["a b"]), beam=np.int64(2), forbid=["x"]) == expected


def test_a_checkpoint_by_number(home):
    assert seqlab.load(home / "run", 1).step == seqlab.load(str(home / "run"), "1").step == 1
    with pytest.raises(SeqlabError, match="no checkpoint '7'"):
        seqlab.load(home / "run", 7)
    for arguments in ((3,), (home / "run", 1.5), (None,)):
        with pytest.raises(SeqlabError, match="expected the path of a run and a checkpoint"):
            seqlab.load(*arguments)


def test_a_run_in_a_notebook(run):
    assert repr(run) == f"<seqlab run '{run.folder}': Transformer for Translation, step 1>"
    card = run._repr_html_()
    assert len(card) < 1000
    assert "Transformer" in card


def seqlab_process(home, *arguments, **options):
    """Runs seqlab in a separate process whose home folder is `home`."""
    environment = {**os.environ, "HOME": str(home), **options.pop("environment", {})}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-m", "seqlab", *arguments]
    return subprocess.run(command, cwd=home, env=environment, check=False, timeout=300, **options)


def test_text_is_utf8_whatever_the_locale(home):
    environment = {"PYTHONIOENCODING": "latin1", "LC_ALL": "C", "PYTHONUTF8": "0"}
    options = {"environment": environment, "capture_output": True, "input": "東京 ½ ä\n".encode()}
    done = seqlab_process(home, "decode", "lm", "--beam", "1", "--max-length", "4", **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().startswith("東京 ½ ä")


def test_closed_standard_streams(home):
    """The command completes without a traceback."""
    command = f"{sys.executable} -m seqlab decode run --input in.txt --output closed.txt --beam 1 <&- >&- 2>&-"
    done = subprocess.run(command, shell=True, cwd=home, check=False, timeout=300)
    assert done.returncode == 0
    assert (home / "closed.txt").read_text().count("\n") == 1


def test_a_pipe_gets_an_answer_while_it_is_open(home):
    command = [
        sys.executable,
        "-m",
        "seqlab",
        "decode",
        "run",
        "--beam",
        "1",
        "--max-length",
        "4",
        "--flush-ms",
        "50",
    ]
    with subprocess.Popen(
        command, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(b"3 hours\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_windows_end_at_pauses():
    def rows():
        yield from (1, 2, 3)
        time.sleep(0.5)
        yield from (4, 5)
        raise SeqlabError("broken")

    windows = []
    with pytest.raises(SeqlabError, match="broken"):
        for window in windows_of(rows(), pause=0.1, size=2):
            windows.append(window)
    assert windows == [[1, 2], [3], [4, 5]]
    assert list(windows_of(range(5), None, 2)) == [[0, 1], [2, 3], [4]]
    assert list(windows_of([], 0.1, 2)) == []


def test_flushing_is_of_standard_input(home, capsys):
    assert call(home, "decode", "run", "--input", "in.txt", "--flush-ms", "5") == 2
    assert "--flush-ms applies only to standard input" in capsys.readouterr().err
    assert call(home, "decode", "run", "--flush-ms", "0", stdin="a\n") == 2
    assert "--flush-ms must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "needs"), [("--mean", "--ensemble"), ("--lm-weight", "--lm")])
def test_options_of_ensembles_need_one(home, option, needs, capsys):
    value = "log_probabilities" if option == "--mean" else "0.5"
    assert call(home, "decode", "run", option, value, stdin="a\n") == 2
    assert capsys.readouterr().err == f"seqlab: {option} needs {needs}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nbest", "2", "--scores"], "--nbest writes scores already: leave out --scores"),
        (["--alignments", "json", "--scores"], "--alignments json writes scores already: leave out --scores"),
        (["--sample", "1", "--risk", "chrf", "--beam", "1"], "risk chooses among samples: set beam to 2 or more"),
    ],
)
def test_options_without_effect_are_refused(home, options, message, capsys):
    assert call(home, "decode", "run", *options, stdin="a\n") == 2
    assert capsys.readouterr().err == f"seqlab: {message}\n"


def without_root_capabilities():
    """The beginning of a command that runs without the capability of root to write everywhere; empty if none can."""
    if os.getuid() != 0:
        return ["env"]
    dropped = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    has_setpriv = shutil.which("setpriv") is not None
    return dropped if has_setpriv and subprocess.run([*dropped, "true"], check=False).returncode == 0 else []


def test_an_output_that_cannot_be_written_is_refused_first(home):
    """Runs commands without root's capability to write everywhere."""
    folder = home / "readonly"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    if not (prefix := without_root_capabilities()):
        pytest.skip("setpriv cannot drop the capability here")
    for arguments in (["decode", "run", "--input", "in.txt"], ["evaluate", "run"], ["analyze", "run"]):
        command = [*prefix, sys.executable, "-m", "seqlab", *arguments, "--output", "readonly/out.txt"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 2
        assert "no permission to write to" in done.stderr


def test_conventions(home, capsys):
    assert call(home, "--version") == 0
    assert capsys.readouterr().out == f"seqlab {seqlab.__version__}\n"
    assert call(home, "--help") == 0
    overview = capsys.readouterr().out
    for group in ("Train:", "Decode and score:", "Understand:", "Manage:", "Exchange:"):
        assert f"\n{group}\n" in overview
    for empty in ((), ("",)):
        assert call(home, "train", *empty) == 2
        assert "CONFIG is missing; usage: seqlab train CONFIG" in capsys.readouterr().err
    assert call(home, "force", "run") == 2
    assert capsys.readouterr().err == "seqlab: seqlab force has been renamed: use seqlab logprob\n"
    assert call(home, "decod", "run") == 2
    assert "did you mean 'decode'" in capsys.readouterr().err


def test_doctor(home, capsys, monkeypatch):
    assert call(home, "doctor", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["devices"].startswith("8 cpu")
    assert facts["advice"] == []
    monkeypatch.setattr("shutil.which", lambda program: program == "nvidia-smi")
    assert call(home, "doctor") == 0
    assert 'advice: this machine has an accelerator that JAX does not use: pip install "jax[cuda12]"' in (
        capsys.readouterr().out
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with tables, in which one validation pair is much longer than the others, and an experiment of three
    steps.
    """
    folder = tmp_path_factory.mktemp("files")
    rows = [f"a b {n}\tx yz {n}" for n in range(30)]
    for split, more in (("train", []), ("dev", ["a b c " * 30 + "\t" + "xyz " * 3]), ("test", [])):
        (folder / f"{split}.tsv").write_text("\n".join(["en\tde", *rows, *more]) + "\n")
    data = LocalFiles("train.tsv", "dev.tsv", "test.tsv", source="en", target="de")
    experiment = dataclasses.replace(
        tiny_experiment(), data=data, steps=3, validation=Validation(every=3, examples=40, beam=0), hash_every=1
    )
    return folder, experiment


def train_in(folder, experiment, name, monkeypatch, lines=None):
    monkeypatch.chdir(folder)
    train(experiment, Path(name), folder / "data", say=(lines if lines is not None else []).append)


def test_validation_judges_what_evaluation_judges(files, monkeypatch, capsys):
    """Both include a validation pair that training would skip."""
    folder, experiment = files
    batching = dataclasses.replace(experiment.batching, max_length=20, max_ratio=3.0)
    train_in(folder, dataclasses.replace(experiment, batching=batching), "short", monkeypatch)
    logged = [json.loads(line) for line in (folder / "short" / "metrics.jsonl").read_text().splitlines()]
    (validated,) = [line["validation perplexity"] for line in logged if "validation perplexity" in line]
    arguments = ["evaluate", "short", "--split", "validation", "--data-dir", "data", "--json", "--checkpoint", "last"]
    assert call(folder, *arguments) == 0
    scores = {score["name"]: score["value"] for score in json.loads(capsys.readouterr().out)["scores"]}
    assert scores["perplexity"] == pytest.approx(validated, rel=1e-5)


def test_a_run_can_be_used_from_another_folder(files, monkeypatch, capsys, tmp_path):
    folder, experiment = files
    train_in(folder, experiment, "moved", monkeypatch)
    arguments = ["evaluate", str(folder / "moved"), "--data-dir", str(tmp_path / "data"), "--json"]
    assert call(tmp_path, *arguments) == 0
    whole = json.loads(capsys.readouterr().out)
    shutil.move(folder / "moved", tmp_path / "moved")
    (folder / "test.tsv").rename(tmp_path / "elsewhere.tsv")  # the other files are no longer needed
    arguments = ["evaluate", "moved", "--data-dir", str(tmp_path / "new"), "--json"]
    assert call(tmp_path, *arguments) == 2
    assert "test: no file" in capsys.readouterr().err
    assert call(tmp_path, *arguments, "--data", "test=elsewhere.tsv") == 0
    moved = json.loads(capsys.readouterr().out)
    names = {score["name"]: score["value"] for score in moved["scores"]}
    assert names.items() <= {score["name"]: score["value"] for score in whole["scores"]}.items()
    assert moved["changed"] == []
    assert call(tmp_path, *arguments, "--data", "tset=x") == 2
    assert "the dataset has no field" in capsys.readouterr().err
    shutil.copyfile(tmp_path / "elsewhere.tsv", folder / "test.tsv")


def test_a_finished_run_is_trained_longer(files, monkeypatch):
    """With a learning rate that does not depend on the number of steps, the result equals that of one longer
    training.
    """
    folder, experiment = files
    constant = dataclasses.replace(experiment.schedule, name="constant", warmup=0)
    experiment = dataclasses.replace(experiment, schedule=constant)
    longer, lines = dataclasses.replace(experiment, steps=6, log_every=2), []
    train_in(folder, experiment, "extended", monkeypatch)
    train_in(folder, longer, "extended", monkeypatch, lines)
    train_in(folder, longer, "whole", monkeypatch)
    assert "extended is extended from 3 to 6 steps" in lines
    hashes = [(folder / name / "hashes.jsonl").read_text() for name in ("extended", "whole")]
    assert hashes[0] == hashes[1]
    assert manifest.checkpoint_steps(folder / "extended")[-1] == 6
    with pytest.raises(
        SeqlabError,
        match=r"steps: 6 in the run, 3 in this command \(the number of steps of a run can only be increased\)",
    ):
        train_in(folder, experiment, "extended", monkeypatch)
    linear = dataclasses.replace(experiment, schedule=dataclasses.replace(constant, name="linear"))
    train_in(folder, linear, "linear", monkeypatch)
    train_in(folder, dataclasses.replace(linear, steps=5), "linear", monkeypatch, lines)
    assert any(line.startswith("the learning rate depends on the number of steps") for line in lines)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_last_rate_is_above_zero(name):
    schedule = dataclasses.replace(tiny_experiment().schedule, name=name, warmup=5, peak=1.0)
    rates = np.asarray(make_schedule(schedule, 20)(np.arange(20)))
    assert rates.max() == rates[4] == 1.0
    assert 0 < rates[-1] < rates[-2]


def test_settings_after_the_end_are_reported(files, monkeypatch):
    folder, experiment = files
    schedule = dataclasses.replace(experiment.schedule, warmup=100)
    optimizer = dataclasses.replace(experiment.optimizer, average_from=4, unfreeze=(("words", 5), ("encoder", 3)))
    lines: list[str] = []
    late = dataclasses.replace(experiment, schedule=schedule, optimizer=optimizer)
    train_in(folder, late, "late", monkeypatch, lines)
    assert [line for line in lines if ", and training has 3: " in line] == [
        "schedule.warmup is 100 steps, and training has 3: the peak rate is never reached",
        "optimizer.average_from is step 4, and training has 3: no mean is computed",
        "optimizer.unfreeze trains 'words' from step 5, and training has 3: it is never trained",
    ]


def test_settings_of_text_without_effect_are_reported(files, monkeypatch):
    folder, experiment = files
    train_in(folder, experiment, "base", monkeypatch)
    lines: list[str] = []
    changed = dataclasses.replace(experiment, text=dataclasses.replace(experiment.text, size=310))
    monkeypatch.chdir(folder)
    train(changed, Path("next"), folder / "data", init_from=Path("base"), say=lines.append)
    assert any(line.startswith("the tokenizer is that of base") and "has no effect" in line for line in lines)


def test_new_files_work(tmp_path, capsys, monkeypatch):
    """A config and parts from `seqlab new` pass the checks and train together."""
    monkeypatch.setattr(parts, "_folders", [])
    names = {"config": "first", "model": "my_model", "encoder": "my_encoder", "task": "my_task", "dataset": "my_data"}
    for kind, name in names.items():
        assert call(tmp_path, "new", kind, name) == 0
        path, advice = capsys.readouterr().out.splitlines()
        assert (tmp_path / path).is_file()
        assert advice.startswith("next: ")
    assert call(tmp_path, "check", "first.py", "--json") == 0
    (tmp_path / "second.py").write_text(
        "from seqlab.config import Batching, Experiment, Schedule, Text, Validation\n"
        "from seqlab.models.classifier_head import ClassifierHead\n"
        "from seqlab_parts.datasets.my_data import MyData\n"
        "from seqlab_parts.encoders.my_encoder import MyEncoder\n"
        "from seqlab_parts.tasks.my_task import MyTask\n"
        "experiment = Experiment(ClassifierHead(MyEncoder(dim=8)), MyTask(), MyData(),\n"
        "    steps=2, text=Text('char', 300),\n"
        "    batching=Batching(tokens=400, buckets=1, max_length=40), schedule=Schedule(warmup=1),\n"
        "    validation=Validation(every=2, examples=5))\n"
    )
    assert call(tmp_path, "train", "second.py", "--out", "run", "--parts", "parts") == 0
    (model,) = models_with(catalogue.module("models", "my_model").TINY)
    assert all(holds for _, holds, _ in certificate(model))
    capsys.readouterr()
    for arguments, message in (
        (("config", "first"), "first.py already exists"),
        (("model", "transformer"), "seqlab already has a model 'transformer'"),
        (("model", "My-Model"), "is not a valid name for a file"),
    ):
        assert call(tmp_path, "new", *arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion(home):
    """Of commands, and of the options of one command."""
    (home / "seqlab").write_text(f'#!/bin/sh\nexec {sys.executable} -m seqlab "$@"\n')
    (home / "seqlab").chmod(0o755)
    script = """
    eval "$(./seqlab completion bash)"
    PATH=.:$PATH
    COMP_WORDS=(seqlab dec); COMP_CWORD=1; _seqlab; echo "${COMPREPLY[@]}"
    COMP_WORDS=(seqlab decode run --bea); COMP_CWORD=3; _seqlab; echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.splitlines() == ["decode", "--beam"]


def test_a_home_that_cannot_be_written(home):
    """Compiled programs are not cached, and nothing is printed about it."""
    (home / "nobody").mkdir()
    (home / "nobody").chmod(0o555)
    if not (dropped := without_root_capabilities()):
        pytest.skip("setpriv cannot drop the capability here")
    command = [*dropped, sys.executable, "-m", "seqlab", "decode", "run", "--input", "in.txt", "--beam", "1"]
    environment = {**os.environ, "HOME": str(home / "nobody")}
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        environment.pop(name, None)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")
