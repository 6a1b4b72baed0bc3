"""One input through a model: the beam as a tree, the probability of each token, and the attention."""

import base64
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from seqlab.codecs.codec import BLANK
from seqlab.decoding.lines import warn
from seqlab.decoding.log_probs import forced_pairs
from seqlab.decoding.requests import Lines, requests_of
from seqlab.decoding.settings import resolve_search
from seqlab.runs.loading import Run
from seqlab.search.forced import attention_weights
from seqlab.search.requests import max_tokens
from seqlab.search.trace import Node, trace
from seqlab.system.errors import SeqlabError
from seqlab.tasks.classification import Classification
from seqlab.types import Attentive, Params, Tokens, kind_of


def inspect(run: Run, line: str) -> dict[str, Any]:
    """Returns the inspection of one line as plain data. Raises `SeqlabError` for a run that does not read text."""
    if not line.strip():
        raise SeqlabError("there is nothing to inspect: give a text")
    task = run.experiment.task
    if isinstance(task, Classification):
        (best, *_), *_ = task.predict(run.trained, {"source": run.trained.encode([line])})
        return {"source": line, "answer": best.text, "document": document_map(run, task, line)}
    if not task.searches:
        raise SeqlabError(f"a {kind_of(task.model)} does not read text: inspect needs a generator or a classifier")
    search = run.experiment.search
    if search.sample is not None:
        raise SeqlabError("samples have no beam to inspect: leave out search.sample")
    target = run.codecs["target"]
    (request,) = requests_of(run.trained, Lines([line]), [0], search, warn)
    beam_trace = trace(run.model, run.params, request, resolve_search(search, target))
    texts = run.write([line], nbest=search.beam)[0]
    nodes = [{"piece": readable_piece(target, node.token), **node._asdict()} for node in beam_trace.nodes]
    best = sorted((node for node in beam_trace.nodes if node.best and node.parent >= 0), key=lambda node: node.depth)
    return {
        "source": line,
        "written": [{"text": text.text, "score": text.score, "log_prob": text.log_prob} for text in texts],
        "tokens": [[readable_piece(target, node.token), math.exp(node.log_prob)] for node in best],
        "tree": nodes,
        "attention": attention_maps(run, [line], [[node.token for node in best]])[0] if best else None,
    }


def attention_maps(run: Run, sources: Sequence[str], texts: Sequence[Sequence[int]] | Sequence[str]) -> list[Any]:
    """Returns the attention of the tokens of each text, given as text or as ids with EOS, to its source, as plain
    data; None for a model without attention to a source. Weights are bytes [L H T S] in base64, 255 for 1.
    `sentences` is the sentence of each source token, if there are several.
    """
    if not isinstance(run.model, Attentive):
        return [None] * len(sources)
    source_tokenizer, target_tokenizer = run.codecs["source"], run.codecs["target"]
    lines, maximum = Lines(sources), max_tokens(run.model)
    requests = requests_of(run.trained, lines, range(len(sources)), run.experiment.search, warn)
    strings = [text if isinstance(text, str) else "" for text in texts]
    answers = forced_pairs(run.trained, sources, strings)[1]
    answers = [ids[:maximum] if isinstance(text, str) else [*text] for ids, text in zip(answers, texts, strict=True)]
    maps = []
    for request, ids, weights in zip(
        requests, answers, attention_weights(run.model, run.params, requests, answers), strict=True
    ):
        _, layers, heads, _ = weights.shape
        sentences = request.sentences or [0]
        content = np.rint(255 * weights.transpose(1, 2, 0, 3)).astype(np.uint8).tobytes()
        maps.append(
            {
                "source": [readable_piece(source_tokenizer, token) for token in request.source or ()],
                "target": [readable_piece(target_tokenizer, token) for token in ids],
                "layers": layers,
                "heads": heads,
                "weights": base64.b64encode(content).decode(),
                "sentences": [*sentences] if max(sentences) else None,
            }
        )
    return maps


def document_map(run: Run, task: Classification, line: str) -> dict[str, Any] | None:
    """Returns the attention of a classifier with two levels: the weight of each sentence and of each word in it."""
    tokenizer = run.codecs["source"]
    inputs: Any = task.read(run.codecs, run.trained.encode([line]))
    intermediates = make_intermediates(run.model)(run.params, inputs)
    attention = [intermediates.get("encoder", {}).get(f"{level}_attention") for level in ("word", "sentence")]
    if None in attention:
        return None
    by_word, by_sentence = (np.asarray(level["weights"][0])[0] for level in attention)  # [N S], [1 N]
    names = [readable_piece(tokenizer, token) for token in inputs.ids[0].tolist()]
    sentences = [
        {
            "weight": float(weight),
            "words": [[name, float(w)] for name, w in zip(names, words, strict=True) if w > 0],
        }
        for weight, words in zip(by_sentence[0], by_word, strict=True)
        if words.any()
    ]
    return {"sentences": sentences}


@functools.lru_cache(maxsize=4)
def make_intermediates(model: Any) -> Callable[[Params, Tokens], dict[str, Any]]:
    """Returns a jitted function that returns the values that the layers of a model sow, by layer."""

    @jax.jit
    def intermediates(params: Params, inputs: Tokens) -> dict[str, Any]:
        return model.apply(params, inputs, train=False, method="classify", mutable=["intermediates"])[1].get(
            "intermediates", {}
        )

    return intermediates


def readable_piece(tokenizer: Any, token: int) -> str:
    """Returns a token as readable text."""
    if token == getattr(tokenizer, "newline", None):
        return "⏎"
    return tokenizer.names[token].replace(BLANK, " ")


def format_inspection(inspection: dict[str, Any]) -> str:
    """Returns the inspection as text for a terminal."""
    if "answer" in inspection:
        lines = [inspection["answer"]]
        for sentence in (inspection["document"] or {"sentences": []})["sentences"]:
            words = " ".join(f"{piece.strip()} {100 * weight:.0f}%" for piece, weight in sentence["words"])
            lines.append(f"  {100 * sentence['weight']:5.1f} %  {words}")
        return "\n".join(lines)
    lines = [f"{text['score']:9.4f}  {text['text']}" for text in inspection["written"]]
    lines += ["", " ".join(f"{piece.strip() or piece} {100 * p:.0f}%" for piece, p in inspection["tokens"]), ""]
    nodes = [Node(*(node[name] for name in Node._fields)) for node in inspection["tree"]]
    return "\n".join([*lines, *tree_lines(nodes, [node["piece"] for node in inspection["tree"]])])


def tree_lines(nodes: Sequence[Node], pieces: Sequence[str]) -> list[str]:
    """Returns a tree of prefixes as lines, best path first. A path without branches is one line."""
    children: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        if node.parent >= 0:
            children[node.parent].append(i)
    end = max(node.last for node in nodes)
    lines = []
    open_nodes = [(0, 0)]
    while open_nodes:
        i, depth = open_nodes.pop()
        begin, text = i, pieces[i]
        while len(children[i]) == 1:
            i = children[i][0]
            text += pieces[i]
        node = nodes[i]
        fate = (
            "finished"
            if node.finished
            else ""
            if children[i]
            else "kept"
            if node.last == end
            else f"pruned at step {node.last + 1}"
        )
        mark = "*" if nodes[begin].best and node.best else " "
        lines.append(f"{node.score:9.4f} {mark} {'  ' * depth}{text.strip()}{f'  ({fate})' if fate else ''}")
        ordered = sorted(children[i], key=lambda child: (nodes[child].best, nodes[child].last, nodes[child].sum))
        open_nodes += [(child, depth + 1) for child in ordered]
    return lines
