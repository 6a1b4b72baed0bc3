"""Conversion of runs in the first format: experiment, tokenizers, parameters and optimizer state.

In the first format models were flat: source embeddings were named `source_words`, and an encoder and its head were
one model.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from seqlab import catalogue
from seqlab.codecs.codec import Codec, Codecs, TextCodec
from seqlab.codecs.marian import checked_marian
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.data.codec_files import RUN_RECORD, codec_hashes, save_codecs
from seqlab.runs import checkpoint, manifest
from seqlab.runs.saving import Saver
from seqlab.system.errors import SeqlabError
from seqlab.system.files import atomic_folder, check_new
from seqlab.system.untrusted import read_json, read_whole, resolve_inside

TOKENIZER_FILES = ("tokenizer*.model", "*.names.json", "*.pieces.json")
LOGS = ("metrics.jsonl", "command.txt")
STACK = {r"^stack/RecurrentStack_0/": "encoder/stack/", r"^stack/TCNBlock_": "encoder/blocks_"}
RENAMED = {  # the paths of parameters below "params", by the name of the old model
    "hierarchical_attention": {
        r"^words/": "encoder/reader/words/",
        r"^((word|sentence)_(encoder|attention)/)": r"encoder/\1",
    },
    "mean_embeddings": {
        r"^table$": "encoder/reader/words/table",
        r"^inner/": "encoder/inner/",
        r"^outer/": "output/",
    },
    "sequence_tagger": {r"^symbols/": "encoder/reader/words/", **STACK},
    "sequence_regressor": STACK,
}
SOURCE_WORDS = {r"^source_words/": "reader/words/"}


def migrate(run: Path, out: Path, say: Callable[[str], None]) -> list[int]:
    """Converts a run in the first format to the current format, writes it to `out`, and returns its steps.

    The new run decodes and resumes like the old run, except that a resumed run samples different dropout masks.
    Damaged checkpoints are omitted and reported by `say`. The hash trail is omitted, since its hashes cover the paths
    of parameters. Raises `SeqlabError` if the run has the current format or all its checkpoints are damaged.
    """
    check_new(out)
    values = read_json(resolve_inside(run, "experiment.json"), dict[str, Any])
    version = values.pop("version", 1)
    if version not in (1, catalogue.VERSION):
        raise SeqlabError(f"{run}/experiment.json: unknown format version {version!r}")
    if version != 1:
        raise SeqlabError(f"{run} has the current format: there is nothing to migrate")
    if not all(isinstance(values.get(part), dict) for part in ("model", "task")):
        raise SeqlabError(f"{run}/experiment.json: not a run in the first format: it has no model or no task")
    name = values["model"].get("part")
    try:
        values["model"] = migrated_model(values["model"], values["task"])
        experiment = catalogue.from_json(values)
    except (KeyError, TypeError, SeqlabError) as error:
        raise SeqlabError(f"{run}/experiment.json: not a run in the first format: {error}") from None
    record = read_json(resolve_inside(run, RUN_RECORD), dict[str, str])
    check_tokenizer_files(run, record)
    codecs = migrated_codecs(run, experiment.task.columns)
    rules = RENAMED.get(str(name), SOURCE_WORDS)
    steps = undamaged_steps(run, say)
    with atomic_folder(out) as part:
        save_codecs(codecs, part)
        catalogue.save_experiment(experiment, part / "experiment.json")
        splits = {split: digest for split, digest in record.items() if not is_tokenizer_file(split)}
        (part / RUN_RECORD).write_text(json.dumps({**splits, **codec_hashes(part)}, indent=1))
        for log in LOGS:
            if (run / log).exists():
                shutil.copyfile(resolve_inside(run, log), part / log)
        saver = Saver(part, len(steps), say=lambda line: None)
        for step in steps:
            tree = renamed_tree(checkpoint.load_tree(run, step), rules)
            saver.save(tree, step, manifest.read_manifest(run, step)["progress"])
            saver.wait()
            if saver.failure:
                raise SeqlabError(f"{out}: the checkpoint of step {step} could not be written: {saver.failure}")
        saver.close()
    return steps


def undamaged_steps(run: Path, say: Callable[[str], None]) -> list[int]:
    """Returns the steps of the checkpoints that match their manifests, and reports the others with `say`. Raises
    `SeqlabError` if there are checkpoints and all are damaged.
    """
    steps, saved = [], manifest.checkpoint_steps(run)
    for folder in sorted(path for path in (run / "checkpoints").glob("*") if path.name.isdecimal()):
        if int(folder.name) not in saved:
            say(f"omitted: {folder} is incomplete: it has no {manifest.MANIFEST}")
    for step in saved:
        try:
            manifest.verify(run, step)
        except SeqlabError as error:
            say(f"omitted: {error}")
        else:
            steps.append(step)
    if saved and not steps:
        raise SeqlabError(
            f"{run}: all checkpoints are damaged (steps {', '.join(map(str, saved))}): restore one from a backup"
        )
    return steps


def migrated_model(model: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Returns the JSON of a model in the current format."""
    words = {"part": "readers/words", "vocabulary": model.get("source_vocabulary", 0)}

    def taken(*names: str) -> dict[str, Any]:
        return {name: model[name] for name in names}

    def stack(reader: dict[str, Any]) -> dict[str, Any]:
        shared = {"reader": reader, **taken("layers", "dim", "dropout", "dtype")}
        if model["layer"] == "tcn":
            return {"part": "encoders/dilated", "kernel": model["kernel"], **shared}
        return {"part": "encoders/recurrent", "cell": model["layer"], **shared}

    match model["part"]:
        case "hierarchical_attention":
            fields = taken("cell", "dim", "hidden", "sentences", "dropout", "dtype")
            encoder = {"part": "encoders/hierarchical", "reader": words, **fields}
            return {"part": "classifier_head", "encoder": encoder, **taken("classes", "dropout", "dtype")}
        case "mean_embeddings":
            encoder = {"part": "encoders/mean", "reader": words, **taken("dim", "hidden", "dropout", "dtype")}
            return {"part": "classifier_head", "encoder": encoder, **taken("classes", "dropout", "dtype")}
        case "sequence_tagger":
            return {"part": "tagger_head", "encoder": stack(words), **taken("classes", "dtype")}
        case "sequence_regressor":
            numbers = {"part": "readers/numbers", "features": task["features"]}
            return {"part": "regressor_head", "encoder": stack(numbers), **taken("dtype")}
    if "source_vocabulary" not in model:
        return model
    return {**{name: value for name, value in model.items() if name != "source_vocabulary"}, "reader": words}


def is_tokenizer_file(name: str) -> bool:
    return any(map(Path(name).match, TOKENIZER_FILES))


def check_tokenizer_files(run: Path, record: dict[str, str]) -> None:
    """Raises `SeqlabError` if a tokenizer file differs from the record of the run."""
    for name, digest in record.items():
        if is_tokenizer_file(name) and hashlib.sha256(read_whole(resolve_inside(run, name))).hexdigest() != digest:
            raise SeqlabError(f"{run / name}: changed since the run was trained")


def migrated_codecs(run: Path, columns: Mapping[str, Codec]) -> Codecs:
    """Returns the tokenizers of a run as codecs."""
    codecs: Codecs = {}
    for column, codec in columns.items():
        if isinstance(codec, TextCodec):
            own = run / f"tokenizer.{column}.model"
            path = resolve_inside(run, own.name if own.exists() else "tokenizer.model")
            pieces = resolve_inside(run, f"{column}.pieces.json")
            codecs[column] = SentencePiece(read_whole(path))
            if pieces.exists():
                fields = read_json(pieces, dict[str, int | list[str]])
                fields["pieces"] = fields.pop("names", [])
                codecs[column] = checked_marian(codecs[column].model, fields, str(pieces))
        elif codec.learned:
            path = resolve_inside(run, f"{column}.names.json")
            codecs[column] = codec.load(read_whole(path), str(path))
        else:
            codecs[column] = codec
    return codecs


def renamed_tree(tree: Any, rules: Mapping[str, str]) -> Any:
    """Returns the tree of a checkpoint with the current paths of the parameters below each "params"."""
    if isinstance(tree, list | tuple):
        return [renamed_tree(branch, rules) for branch in tree]
    if not isinstance(tree, dict):
        return tree
    inner = tree.get("params")
    if len(tree) == 1 and isinstance(inner, dict):
        return {"params": renamed_parameters(inner, rules)}
    return {name: renamed_tree(branch, rules) for name, branch in tree.items()}


def renamed_parameters(params: dict[str, Any], rules: Mapping[str, str]) -> dict[str, Any]:
    leaves = {}
    for path, leaf in flatten_dict(params, sep="/").items():
        for old, new in rules.items():
            path = re.sub(old, new, path)
        leaves[path] = leaf
    return unflatten_dict(leaves, sep="/")
