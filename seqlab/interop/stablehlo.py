"""The search of a run as one StableHLO program for CPU, GPU and TPU, which runs without seqlab."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqlab.decoding.settings import resolve_search
from seqlab.runs.loading import Run
from seqlab.search.presets import resolve_preset
from seqlab.search.requests import Request, Shape, collate
from seqlab.search.searcher import make_mesh, make_searcher, whole_search
from seqlab.system.errors import SeqlabError
from seqlab.system.files import atomic_folder
from seqlab.types import kind_of

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(run: Run, out: Path, rows: int, length: int) -> None:
    """Writes the search of `rows` sentences of at most `length` tokens, source and text, with the rules of the run.

    `jax.export.deserialize` reads `search.jax`; `search.mlir` is the program as text. `signature.json` lists the
    arguments, in order, and the results. `parameters.safetensors` has the arguments that are parameters.
    """
    from safetensors.numpy import save_file

    task, search, target = run.experiment.task, run.search_config(), run.codecs["target"]
    if not task.searches:
        raise SeqlabError(f"{run.folder}: a {kind_of(task.model)} does not search")
    settings = resolve_search(search, target)
    searcher = make_searcher(run.model, settings.static, make_mesh(jax.local_devices()[:1]))
    source = [target.eos] * length if "source" in task.columns else None
    request = Request(source, [target.bos], length, minimum=resolve_preset(search).minimum)
    requests = collate([request] * rows, rows, Shape(length if source else 0, 1, length))
    weights = jax.tree.map(np.float32, settings.weights)
    arguments = {"parameters": run.params, "requests": requests, "seed": np.int32(settings.seed), "weights": weights}
    leaves, tree = jax.tree.flatten(arguments)

    def program(*leaves: jax.Array) -> dict[str, jax.Array]:
        inputs = jax.tree.unflatten(tree, leaves)
        hypotheses = whole_search(
            searcher, inputs["parameters"], inputs["requests"], inputs["weights"], inputs["seed"], length
        )
        return {name: getattr(hypotheses, name) for name in ("tokens", "lengths", "scores", "log_probs")}

    exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(*leaves)
    results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    with atomic_folder(out) as part:
        (part / "search.jax").write_bytes(exported.serialize())
        (part / "search.mlir").write_text(exported.mlir_module(), "utf-8")
        save_file(
            {name: np.asarray(leaf) for name, leaf in named_leaves({"parameters": run.params})},
            part / "parameters.safetensors",
        )
        signature = {"arguments": describe_leaves(arguments), "results": describe_leaves(results)}
        (part / "signature.json").write_text(json.dumps(signature, indent=1) + "\n", "utf-8")


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def describe_leaves(tree: Any) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": str(leaf.dtype), "shape": list(leaf.shape)} for name, leaf in named_leaves(tree)]
