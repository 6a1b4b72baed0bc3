"""Marian translation models in the format of Hugging Face: a folder with config.json, model.safetensors, vocab.json
and two SentencePiece models. Post-norm Transformers with one table for source, target and output. Pickled files are
not read.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqlab import catalogue
from seqlab.codecs.marian import Marian
from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Experiment, Search
from seqlab.data.codec_files import RUN_RECORD, codec_hashes, save_codecs
from seqlab.datasets.parallel_text import ParallelText
from seqlab.layers.embed import sinusoidal
from seqlab.models.transformer import Transformer
from seqlab.readers.words import Words
from seqlab.runs import saving
from seqlab.runs.loading import Run
from seqlab.system.errors import SeqlabError
from seqlab.system.files import atomic_folder
from seqlab.system.untrusted import fits, read_json
from seqlab.tasks.translation import Translation
from seqlab.types import Params

POSITIONS = 1024  # in the table of an exported model
BARRED_BIAS = -1e4  # the bias of tokens that must not be written
ACTIVATION_NAMES = {"relu": "relu", "gelu": "gelu", "swish": "swish", "silu": "swish"}  # Marian: seqlab
TABLE = "model.shared.weight"
BIAS = "final_logits_bias"
FIRST_POSITION = "model.decoder.embed_positions.weight"
NUMBERS = (  # in config.json
    *("vocab_size", "d_model", "pad_token_id", "eos_token_id", "decoder_start_token_id"),
    *(f"{stack}_{n}" for stack in ("encoder", "decoder") for n in ("layers", "attention_heads", "ffn_dim")),
)
SEARCH_SETTINGS = {  # in generation_config.json
    "bad_words_ids": list[list[int]] | None,
    "num_beams": int | None,
    "max_length": int | None,
    "length_penalty": float | None,
}


class Leaf(NamedTuple):
    """One array of a layer: its path, its name in Marian, and the conversions to Marian and back."""

    path: tuple[str, ...]
    name: str
    to_marian: Callable[[np.ndarray], np.ndarray]
    from_marian: Callable[[np.ndarray], np.ndarray]


def leaves(model: Transformer) -> Iterator[Leaf]:
    """Yields all arrays of both stacks."""
    dim, split = model.dim, (model.heads, model.dim // model.heads)

    def matrix(path: tuple[str, ...], name: str, kernel: tuple[int, ...], bias: tuple[int, ...], rows: int) -> Any:
        yield Leaf(
            (*path, "kernel"), f"{name}.weight", lambda x: x.reshape(rows, -1).T, lambda x: x.T.reshape(kernel)
        )
        yield Leaf((*path, "bias"), f"{name}.bias", lambda x: x.reshape(-1), lambda x: x.reshape(bias))

    def norm(path: tuple[str, ...], name: str) -> Any:
        for kind, marian_kind in (("scale", "weight"), ("bias", "bias")):
            yield Leaf((*path, kind), f"{name}.{marian_kind}", lambda x: x, lambda x: x)

    for side, count in (("encoder", model.encoder_layers), ("decoder", model.decoder_layers)):
        for i in range(count):
            path, name = (side, f"stack_{i}"), f"model.{side}.layers.{i}"
            for kind, marian_kind in (("self", "self_attn"), ("cross", "encoder_attn"))[: 1 + (side == "decoder")]:
                for part in ("query", "key", "value"):
                    part_path = (*path, f"{kind}_attention", part)
                    yield from matrix(part_path, f"{name}.{marian_kind}.{part[0]}_proj", (dim, *split), split, dim)
                part_path = (*path, f"{kind}_attention", "out")
                yield from matrix(part_path, f"{name}.{marian_kind}.out_proj", (*split, dim), (dim,), dim)
                yield from norm((*path, f"{kind}_norm"), f"{name}.{marian_kind}_layer_norm")
            inner, outer = (*path, "feed_forward", "inner"), (*path, "feed_forward", "outer")
            yield from matrix(inner, f"{name}.fc1", (dim, model.hidden), (model.hidden,), dim)
            yield from matrix(outer, f"{name}.fc2", (model.hidden, dim), (dim,), model.hidden)
            yield from norm((*path, "feed_forward_norm"), f"{name}.final_layer_norm")


def branch_at(tree: Any, path: tuple[str, ...]) -> Any:
    """Returns the value at a path in a nested dict, or None."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def import_marian(folder: Path, out: Path) -> Run:
    """Writes and returns a run that decodes as the model of a folder does in transformers.

    The run has the ids of the model, and decoding starts from its pad. Raises `SeqlabError` for another kind of
    folder, pickled weights, or another architecture.
    """
    arrays, config = read_arrays(folder), read_json(folder / "config.json", dict[str, Any])
    if config.get("model_type") != "marian":
        raise SeqlabError(f"{folder}: the model type is {config.get('model_type')!r}, not 'marian'")
    for name in NUMBERS:
        if not fits(config.get(name), int) or not 0 <= config[name] < 1 << 24:
            raise SeqlabError(
                f"{folder}/config.json: {name} must be an integer of at least 0, not {config.get(name)!r}"
            )
    if not config.get("share_encoder_decoder_embeddings", True) or not config.get("scale_embedding", False):
        raise SeqlabError(f"{folder}: source and target must share one scaled embedding table")
    activation = config.get("activation_function", "gelu")
    if activation not in ACTIVATION_NAMES:
        raise SeqlabError(
            f"{folder}: unsupported activation {activation!r}: expected one of {', '.join(ACTIVATION_NAMES)}"
        )
    shared = {name: config[f"encoder_{name}"] for name in ("attention_heads", "ffn_dim")}
    if any(config[f"decoder_{name}"] != value for name, value in shared.items()):
        raise SeqlabError(f"{folder}: encoder and decoder differ in width or heads")
    size = config["vocab_size"]
    model = Transformer(
        reader=Words(size),
        vocabulary=size,
        encoder_layers=config["encoder_layers"],
        decoder_layers=config["decoder_layers"],
        dim=config["d_model"],
        heads=shared["attention_heads"],
        hidden=shared["ffn_dim"],
        dropout=config.get("dropout", 0.1),
        norm="post",
        activation=ACTIVATION_NAMES[activation],
        biases=True,
        tie="all",
    )
    codecs = read_tokenizers(folder, config)
    params = read_params(model, arrays, config["decoder_start_token_id"])
    experiment = Experiment(model, Translation(), ParallelText(), search=read_search(folder, config))
    with atomic_folder(out) as part:
        save_codecs(codecs, part)
        catalogue.save_experiment(experiment, part / "experiment.json")
        (part / RUN_RECORD).write_text(json.dumps(codec_hashes(part), indent=1))
        saving.save_alone(part, {"params": params, "step": np.int32(1)}, 1, {"imported": str(folder)})
    return Run(out, 1, experiment, codecs, params, model)


def read_params(model: Transformer, arrays: dict[str, np.ndarray], start: int) -> Params:
    """Returns the parameters. Decoding starts from the token `start`."""
    size = model.vocabulary
    words = {
        "table": require_array(arrays, TABLE, (size, model.dim)),
        "bias": require_array(arrays, BIAS, (1, size))[0],
    }
    params: dict[str, Any] = {"words": words}
    for leaf in leaves(model):
        branch = params
        for name in leaf.path[:-1]:
            branch = branch.setdefault(name, {})
        values = require_array(arrays, leaf.name)
        try:
            branch[leaf.path[-1]] = np.ascontiguousarray(leaf.from_marian(values))
        except ValueError:
            raise SeqlabError(f"{leaf.name} does not have the shape that config.json states") from None
    if FIRST_POSITION in arrays:  # a different first position contains the embedding of the start token
        usual = np.asarray(sinusoidal(jnp.arange(len(arrays[FIRST_POSITION])), model.dim))
        if not np.allclose(arrays[FIRST_POSITION][1:], usual[1:], atol=1e-4):
            raise SeqlabError("model.safetensors: the positions are not sinusoidal")
        words["table"][start] += (arrays[FIRST_POSITION][0] - usual[0]) * model.dim**-0.5
    return {"params": params}


def read_search(folder: Path, config: dict[str, Any]) -> Search:
    """Returns the default search of `generate`."""
    path = folder / "generation_config.json"
    settings = {**config, **(read_json(path, dict[str, Any]) if path.exists() else {})}
    malformed = [name for name, kind in SEARCH_SETTINGS.items() if not fits(settings.get(name), kind)]
    if malformed:
        raise SeqlabError(f"{path}: {malformed[0]} cannot be {settings[malformed[0]]!r}")
    barred = {word[0] for word in settings.get("bad_words_ids") or [] if len(word) == 1}
    special = {config["pad_token_id"]: "<pad>", config["eos_token_id"]: "</s>"}
    return Search(
        beam=settings.get("num_beams") or 1,
        preset="hf",
        alpha=float(settings.get("length_penalty") or 1.0),
        max_length=(settings.get("max_length") or 512) - 1,
        forbid=tuple(name for i, name in special.items() if i in barred),
    )


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of model.safetensors as float32."""
    path = folder / "model.safetensors"
    if not path.is_file():
        pickled = sorted(file.name for file in folder.glob("*") if file.suffix in (".bin", ".pt", ".pth", ".pkl"))
        if pickled:
            raise SeqlabError(
                f"{folder}: {pickled[0]} is pickled, and loading it can execute code: save it as model.safetensors"
            )
        raise SeqlabError(f"{folder} has no model.safetensors")
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise SeqlabError("safetensors is needed: pip install 'seqlab[interop]'") from None
    try:
        return {name: values.astype(np.float32) for name, values in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise SeqlabError(f"{path}: {error}") from None


def require_array(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    if name not in arrays or shape not in (None, arrays[name].shape):
        reason = f"not {arrays[name].shape}" if name in arrays else "which is missing"
        raise SeqlabError(f"model.safetensors needs {name}{'' if shape is None else f' of {shape}'}, {reason}")
    return arrays[name]


def read_tokenizers(folder: Path, config: dict[str, Any]) -> dict[str, Marian]:
    """Returns the tokenizers of source and target: SentencePiece models with the ids of vocab.json."""
    numbers = read_json(folder / "vocab.json", dict[str, int])
    if sorted(numbers.values()) != list(range(config["vocab_size"])):
        raise SeqlabError(f"{folder}: vocab.json must number its {config['vocab_size']} pieces from 0 on")
    names = tuple(sorted(numbers, key=numbers.__getitem__))
    special = config["pad_token_id"], config["decoder_start_token_id"], config["eos_token_id"]
    if max(special) >= len(names):
        raise SeqlabError(f"{folder}/config.json: id {max(special)} is not one of the {len(names)} pieces")
    codecs = {}
    for column in ("source", "target"):
        path = folder / f"{column}.spm"
        if not path.exists():
            raise SeqlabError(f"{folder} has no {path.name}")
        codecs[column] = Marian(path.read_bytes(), names, *special, numbers.get("<unk>", special[0]))
    return codecs


def marian_arrays(model: Transformer, params: dict[str, Any], bos: int) -> dict[str, np.ndarray]:
    """Returns the arrays of an exported model by name, with a pad added to the vocabulary.

    The first position of the decoder contains the embedding of `bos`, because decoding starts from the pad.
    """
    words = params["words"]
    pad = len(words["table"])
    bias = np.append(words.get("bias", np.zeros(pad)), BARRED_BIAS)
    positions = np.array(sinusoidal(jnp.arange(POSITIONS), model.dim))
    positions[0] += words["table"][bos] * model.dim**0.5
    arrays = {
        TABLE: np.append(words["table"], np.zeros((1, model.dim)), axis=0),
        BIAS: bias[None],
        FIRST_POSITION: positions,
    }
    for leaf in leaves(model):
        value = branch_at(params, leaf.path)
        heads = (model.heads, model.dim // model.heads)
        shape = (model.dim,) if leaf.path[-2] == "out" else heads
        arrays[leaf.name] = leaf.to_marian(np.zeros(shape) if value is None else value)
    return arrays


def marian_config(model: Transformer, size: int, ids: dict[str, int]) -> dict[str, Any]:
    """Returns the config.json of an exported model with `size` words and the special `ids`."""
    side = {"attention_heads": model.heads, "ffn_dim": model.hidden}
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "vocab_size": size,
        "decoder_vocab_size": size,
        "d_model": model.dim,
        "encoder_layers": model.encoder_layers,
        "decoder_layers": model.decoder_layers,
        **{f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in side.items()},
        "activation_function": model.activation,
        "dropout": model.dropout,
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "static_position_embeddings": True,
        "max_position_embeddings": POSITIONS,
        "is_encoder_decoder": True,
        **ids,
        "forced_eos_token_id": None,
    }


def export_marian(run: Run, out: Path) -> None:
    """Writes the model of a run as a folder that transformers and the converter of CTranslate2 read as a
    MarianMTModel.

    The ids stay the same. A pad with an embedding of zeros follows them, and decoding in Marian starts from it; the
    first position of the decoder contains the embedding of BOS. Raises `SeqlabError` for a model that Marian cannot
    represent.
    """
    model, source, target = run.model, run.codecs.get("source"), run.codecs.get("target")
    wrong = None
    if not isinstance(model, Transformer):
        wrong = f"a {type(model).__name__}, not a Transformer"
    elif model.norm != "post" or model.positions != "sinusoidal" or model.tie != "all":
        wrong = "norm must be 'post', positions 'sinusoidal' and tie 'all'"
    elif model.adapter:
        wrong = "its layers have adapters"
    elif not isinstance(source, SentencePiece | Marian) or not isinstance(target, SentencePiece | Marian):
        wrong = "source and target must be text"
    elif source.names != target.names:
        wrong = "source and target must share a vocabulary: text.joint"
    if wrong is not None or not isinstance(model, Transformer) or source is None or target is None:
        raise SeqlabError(f"{run.folder} cannot be a Marian model: {wrong}")
    arrays = marian_arrays(model, jax.tree.map(np.asarray, run.params["params"]), target.bos)
    size = target.size + 1
    pad = size - 1
    names = [f"<unused{i}>" if name in ("<pad>", "") else name for i, name in enumerate(target.names)] + ["<pad>"]
    ids = {"pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": target.eos}
    generation = {**ids, "bad_words_ids": [[pad]], "num_beams": run.search_config().beam, "max_length": 512}
    tokenizer = {
        "tokenizer_class": "MarianTokenizer",
        "model_max_length": POSITIONS,
        "eos_token": target.names[target.eos],
        "unk_token": target.names[target.unk],
        "pad_token": "<pad>",
        "separate_vocabs": False,
    }
    from safetensors.numpy import save_file

    with atomic_folder(out) as part:
        contiguous = {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
        save_file(contiguous, part / "model.safetensors", {"format": "pt"})
        vocabulary = {name: i for i, name in enumerate(names)}
        files = {
            "config": marian_config(model, size, ids),
            "generation_config": generation,
            "tokenizer_config": tokenizer,
            "vocab": vocabulary,
        }
        for name, content in files.items():
            (part / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
        (part / "source.spm").write_bytes(source.model)
        (part / "target.spm").write_bytes(target.model)
