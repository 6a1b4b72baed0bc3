"""Untrusted files: they cannot execute code, refer to files outside their folder, or use unlimited memory."""

import ast
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqlab import catalogue
from seqlab.datasets.tfds import Tfds
from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import checkpoint, loading, manifest
from seqlab.system.errors import SeqlabError
from seqlab.system.untrusted import fits, parse_json, plain_files, read_json, read_whole, resolve_inside
from tests.command import save_untrained

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("seqlab", "scripts") for path in (ROOT / folder).rglob("*.py"))
KNOWN = {"seqlab/data/cldr.py: pickle"}  # reads the pickles of the installed Babel


def dangers(tree: ast.Module) -> set[str]:
    """Returns the constructs in a source file that could execute data."""
    result = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            banned = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
            result |= banned & {name.partition(".")[0] for name in names}
        elif isinstance(node, ast.Call):
            called, named = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
                result.add(called)
            if called in ("np.load", "numpy.load") and named.get("allow_pickle") != "False":
                result.add(called)
            if named.get("shell", "False") != "False":
                result.add("shell")
    return result


def test_nothing_executes_data():
    result = {
        f"{path.relative_to(ROOT)}: {danger}"
        for path in SOURCES
        for danger in dangers(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert result == KNOWN


@pytest.mark.parametrize(
    "source",
    [
        "import pickle as p",
        "from pickle import loads",
        "import yaml",
        "x = eval(y)",
        "exec(y)",
        "os.system('ls')",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(c, shell=True)",
    ],
)
def test_what_is_looked_for_is_found(source):
    assert dangers(ast.parse(source))


def test_what_executes_nothing():
    assert not dangers(
        ast.parse("np.load(path, allow_pickle=False); run(c, shell=False); model.eval(); re.compile(x)")
    )


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1 << 63, int, False),
        (10**400, float, False),
        (1, float, True),
        (float("nan"), float, True),
        (True, float, False),
        (1, bool, False),
        (None, int | None, True),
        ("x", int | None, False),
        ([1, 2], tuple[int, ...], True),
        ([1, "x"], tuple[int, ...], False),
        ([1, "x"], tuple[int, str], True),
        ([1], tuple[int, str], False),
        ("ab", list[str], False),
        ({"a": [1.5]}, dict[str, list[float]], True),
        ({"a": [None]}, dict[str, list[float]], False),
        ([], dict[str, int], False),
        ({"a": object}, dict[str, Any], True),
    ],
)
def test_values_and_types(value, wanted, expected):
    assert fits(value, wanted) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "f: not valid JSON"),
        (b"\xff", r"f: not valid JSON: not UTF-8 \(invalid start byte at byte 0\)"),
        (b"[" * 100_000 + b"]" * 100_000, "f: not valid JSON: nested too deeply"),
        (b'["\\ud800"]', "f: not valid JSON: contains an unpaired surrogate"),
        (b"1" * 5000, "f: not valid JSON: contains a number with too many digits"),
        (b"[1]", "f: unexpected content"),
    ],
)
def test_json_that_is_none(content, message):
    with pytest.raises(SeqlabError, match=message):
        parse_json(content, "f", dict[str, Any])
    assert parse_json(b'{"a": "\\ud83d\\ude42"}', "f", dict[str, Any]) == {"a": "\U0001f642"}


def test_files_are_plain_small_and_inside(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "outside").write_text("{}")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "circle").symlink_to("circle")
    (folder / "here").write_text("[1]")
    (folder / "good").symlink_to("here")
    for name in ("link", "circle"):
        with pytest.raises(SeqlabError, match="is a symbolic link to a place outside its folder, or to itself"):
            resolve_inside(folder, name)
    for name in ("../outside", "/etc/hostname"):
        with pytest.raises(SeqlabError, match=r"is outside the folder .*: a symbolic link or \.\. leads out of it"):
            resolve_inside(folder, name)
    assert read_json(resolve_inside(folder, "good"), list[int]) == [1]
    with pytest.raises(SeqlabError, match="it has 3 bytes, but the maximum is 2"):
        read_whole(folder / "here", 2)
    os.mkfifo(folder / "pipe")
    with pytest.raises(SeqlabError, match="pipe is not a regular file"):
        read_whole(folder / "pipe")
    with pytest.raises(SeqlabError, match="not a regular file but"):
        list(plain_files(folder))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A run from an untrusted source."""
    run = tmp_path_factory.mktemp("given") / "run"
    save_untrained(tiny_experiment(), dict.fromkeys(("source", "target"), tiny_tokenizer()), run)
    return run


@pytest.fixture
def run(given, tmp_path):
    return Path(shutil.copytree(given, tmp_path / "run"))


def changed(run: Path, **fields: Any) -> None:
    """Changes fields of the experiment; "model__dim" is the field dim of its model."""
    path = run / "experiment.json"
    values = json.loads(path.read_text())
    for name, value in fields.items():
        *holders, last = name.split("__")
        holder = values
        for field in holders:
            holder = holder[field]
        holder[last] = value
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__dim": 10**12}, "model.dim is 1000000000000, but must be"),
        ({"model__encoder_layers": 10**6}, "model.encoder_layers is 1000000, but must be at most 1000"),
        ({"model__dim": 1 << 20}, "the model of the experiment has float32"),
        ({"model__dim": 16}, "the model of the experiment has float32"),
        ({"model__dim": "8"}, "model.dim must be of type int"),
        ({"model__parent": None}, "unknown field model.parent"),
        ({"model__name": "x"}, "unknown field model.name"),
        ({"model__part": "../config"}, "model.part must be the name of a part .*, not '../config'"),
        ({"model__part": "__init__"}, "unknown model '__init__'"),
        ({"model__part": "transformer.x"}, "unknown model 'transformer.x'"),
        ({"task__part": "seqlab.cli.main"}, "unknown task 'seqlab.cli.main'"),
        ({"data__part": "os"}, "unknown dataset 'os'"),
        ({"task__part": ["translation"]}, r"task.part must be the name of a part .*, not \['translation'\]"),
        ({"text": {"part": "x"}}, "unknown field text.part"),
        ({"search__beam": 10**9}, "beam must be at most 10,000"),
        ({"search__beam": 10**30}, "search.beam is out of range"),
        ({"seed": (1 << 63) - 1}, "experiment.json: seed must be between 0 and 4294967295, not 9223372036854775807"),
        ({"seed": -1}, "seed must be between"),
        ({"steps": (1 << 63) - 1}, "experiment.json: steps must be between 1 and 2147483647"),
        ({"steps": True}, "experiment.steps must be of type int"),
        ({"model__vocabulary": 5}, "model.vocabulary is 5, but the data has"),
        ({"model__vocabulary": 0, "model__reader__vocabulary": 0}, "lacks the size of a vocabulary; restore it"),
        (
            {"task": {"part": "language_modeling"}},
            "reads the column 'source', but LanguageModeling has only 'target'",
        ),
        ({"task": {"part": "classification"}}, "no codec for the column 'label'"),
        ({"extra": "x"}, "unknown field experiment.extra"),
    ],
)
def test_an_experiment_that_somebody_changed(run, fields, message):
    changed(run, **fields)
    with pytest.raises(SeqlabError, match=message) as told:
        loading.load(run)
    assert str(run) in str(told.value)


def test_a_name_of_a_dataset_fetches_no_code():
    for name in ("huggingface:x", "kaggle:x/y", "x/y/data_dir=z", "gs://x", "../x"):
        with pytest.raises(SeqlabError, match="expected the name of a dataset"):
            Tfds(name=name, source="x").splits()


def test_features_name_no_other_module(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    content = {"pythonClassName": "tensorflow_datasets.core.x.Y", "features": {"a": {"pythonClassName": "os.path.X"}}}
    (tmp_path / "features.json").write_text(json.dumps(content))
    with pytest.raises(SeqlabError, match=r"'os\.path\.X' is not a feature"):
        Tfds(folder=str(tmp_path), source="a").splits()


def sealed(run: Path, step: int = 1) -> None:
    """Updates the manifest to match the files, as an attacker could."""
    content = json.loads((run / "checkpoints" / str(step) / "manifest.json").read_text())
    files = manifest.hash_files(run / "checkpoints" / str(step) / "state")
    manifest.write_manifest(run, step, content["progress"], files)


def test_an_array_larger_than_memory_is_refused_before_it_is_made(run):
    """The files only declare the shape and are tiny, since missing chunks are zeros."""
    import tensorstore

    folder = (run / "checkpoints" / "1" / "state").resolve()
    name = "params.params.words.table"
    store = {"driver": "ocdbt", "base": f"file://{folder}"}
    spec = {"driver": "zarr", "kvstore": {**store, "path": f"{name}/"}}
    metadata = {"shape": [10**7, 10**7], "chunks": [10**3, 10**3], "dtype": "<f4"}
    tensorstore.open({**spec, "metadata": metadata}, create=True, delete_existing=True).result()
    sealed(run)
    with pytest.raises(SeqlabError, match=r"the arrays have 400,000,000,\d{3},\d{3} bytes, but this machine has"):
        checkpoint.restore(run, 1)
    metadata["shape"] = [10**3, 10**4]
    tensorstore.open({**spec, "metadata": metadata}, create=True, delete_existing=True).result()
    sealed(run)
    with pytest.raises(
        SeqlabError, match=r"\['words'\]\['table'\] is float32 \(1000, 10000\), but the model.* \(277, 8\)"
    ):
        loading.load(run)


def test_links_and_pipes_in_a_checkpoint(run, tmp_path):
    state = run / "checkpoints" / "1" / "state"
    file = state / "_METADATA"
    shutil.copy(file, tmp_path / "elsewhere")
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SeqlabError, match="_METADATA: not a regular file but a symbolic link"):
        loading.load(run)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(SeqlabError, match="_METADATA: not a regular file but a device, pipe or socket"):
        loading.load(run)
    shutil.move(state, tmp_path / "state")
    state.symlink_to(tmp_path / "state")
    with pytest.raises(SeqlabError, match="state: not a regular file"):
        loading.load(run)
    step = state.parent
    shutil.move(step, tmp_path / "1")
    step.symlink_to(tmp_path / "1")
    with pytest.raises(SeqlabError, match="is outside the folder"):
        loading.load(run)


def test_a_tokenizer_elsewhere(run, tmp_path):
    (path,) = (run / "codecs").iterdir()
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SeqlabError, match="sentencepiece: not a regular file"):
        loading.load(run)


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        [],
        {},
        {"step": 2, "progress": {}, "files": {}},
        {"step": 1, "progress": [], "files": {}},
        {"step": 1, "progress": {}, "files": ["_METADATA"]},
        {"step": 10**30, "progress": {}, "files": {}},
    ],
)
def test_a_manifest_that_is_none(run, manifest):
    (run / "checkpoints" / "1" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SeqlabError, match="manifest"):
        loading.load(run)


def test_steps_are_plain_numbers(run):
    for name in ("01", "\u0661", "1.5", "-1", "x", "9" * 30):
        shutil.copytree(run / "checkpoints" / "1", run / "checkpoints" / name)
    assert manifest.checkpoint_steps(run) == [1]
    assert np.isfinite(loading.load(run).params["params"]["words"]["table"]).all()


def test_parts_are_found_by_plain_names():
    for kind in catalogue.EXPERIMENT_FOLDERS:
        for name in ("", ".", "..", "__init__", "a.b", "a/b", "/etc/passwd", "\0", "x" * 1000):
            with pytest.raises(SeqlabError, match="unknown .*: (choose from|seqlab has no built-in ones)"):
                catalogue.part_class(kind, name)
