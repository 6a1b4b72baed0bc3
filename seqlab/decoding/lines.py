"""Decodes lines of text, by a search or by the predictions of a task without a search."""

import math
import sys
from collections.abc import Callable
from typing import Any

import jax

from seqlab.config import Search
from seqlab.decoding.alignments import with_alignments
from seqlab.decoding.decoded_text import Alignment, DecodedText
from seqlab.decoding.predictions import predict_rows
from seqlab.decoding.requests import Lines, constrained_requests, requests_of
from seqlab.decoding.risk import least_risk
from seqlab.decoding.settings import resolve_search
from seqlab.decoding.trained import TrainedModel
from seqlab.distributed.hosts import gather, share_of
from seqlab.search.generate import generate


def warn(message: str) -> None:
    print(f"seqlab: {message}", file=sys.stderr)


def decode_lines(
    trained: TrainedModel,
    lines: Lines,
    search: Search,
    *,
    count: int = 1,
    aligned: bool = False,
    progress: Callable[[int], None] = lambda count: None,
    warn: Callable[[str], None] = warn,
) -> list[list[DecodedText]]:
    """Returns the `count` best texts for each line, best first. A task without a search returns its predictions.

    In a job of several processes, each decodes a share of the lines and returns all texts. A blank source gives one
    empty text without a search; a blank prompt is the beginning of a text. A source that is longer than the model can
    read is truncated and reported to `warn`.
    """
    options: dict[str, Any] = {"count": count, "aligned": aligned, "progress": progress, "warn": warn}
    if jax.process_count() == 1:
        return decode_here(trained, lines, search, **options)
    share = share_of(len(lines.texts))
    texts = decode_here(trained, lines.part(slice(share.start, share.stop)), search, **options)
    return [[from_json(*text) for text in best] for part in gather(texts) for best in part]


def from_json(text: str, score: float, log_prob: float, ids: list[int], alignment: Any) -> DecodedText:
    """Returns a decoded text from values in which tuples have become lists."""
    return DecodedText(text, score, log_prob, ids, alignment and Alignment(*alignment))


def decode_here(
    trained: TrainedModel,
    lines: Lines,
    search: Search,
    *,
    count: int,
    aligned: bool,
    progress: Callable[[int], None],
    warn: Callable[[str], None],
) -> list[list[DecodedText]]:
    """Decodes lines in this process; see `decode_lines`."""
    task, model, params, codecs = trained
    if not task.searches:
        rows = trained.encode(lines.texts) if lines.ids is None else lines.ids
        predictions = predict_rows(trained, {task.input_columns[0]: rows}, len(rows))
        progress(len(predictions))
        return [[DecodedText(p.text, p.score or 0.0, 0.0) for p in best[:count]] for best in predictions]
    target = codecs["target"]
    settings = resolve_search(search, target, search.beam if search.risk else count)
    has_source = "source" in task.columns
    rows = [i for i, line in enumerate(lines.texts) if line.strip() or not has_source]
    requests = constrained_requests(lines.constraints, rows, requests_of(trained, lines, rows, search, warn), target)
    results = generate(model, params, requests, settings, progress=progress)
    # A language model's text begins with its prompt, without soft prompts; a translation's prompt is BOS alone.
    prompts = [[token for token in request.prompt if token < target.size] for request in requests]
    texts = [
        [DecodedText(target.decode([*prompt, *r.ids]), r.score, r.log_prob, r.ids) for r in best]
        for prompt, best in zip(prompts, results, strict=True)
    ]
    if search.risk:
        texts = [least_risk(search.risk, samples)[:count] for samples in texts]
    if aligned:
        texts = with_alignments(trained, requests, texts)
    decoded: list[list[DecodedText]] = [[DecodedText("", 0.0, 0.0)] for _ in lines.texts]
    for i, best in zip(rows, texts, strict=True):
        if not best:
            line = lines.texts[i][:40]
            warn(f"line {lines.first + i}: no text satisfies all constraints: {line}")
        decoded[i] = best or [DecodedText("", -math.inf, -math.inf)]
    return decoded
