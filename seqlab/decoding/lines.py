"""Lines of text in, texts out: what stands between a task's requests and search."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from seqlab.config import Search
from seqlab.data.tokenizers import Tokenizers
from seqlab.decoding.alignments import with_alignments
from seqlab.decoding.decoded_text import Alignment, DecodedText
from seqlab.decoding.requests import NO_CONSTRAINTS, Constraints, constrained_requests, requests_of, warn
from seqlab.decoding.risk import least_risk
from seqlab.decoding.settings import settled
from seqlab.distributed.hosts import gather, share_of
from seqlab.search.generate import generate
from seqlab.types import Params


def decode_lines(
    task: Any,
    model: Any,
    params: Params,
    tokenizers: Tokenizers,
    lines: Sequence[str],
    search: Search,
    *,
    first: int = 1,
    told: Constraints = NO_CONSTRAINTS,
    **how: Any,
) -> list[list[DecodedText]]:
    """What `decode_here` gives; of several processes each decodes a share of the lines, and has all in the end."""
    if jax.process_count() == 1:
        return decode_here(task, model, params, tokenizers, lines, search, first=first, told=told, **how)
    share = share_of(len(lines))
    mine = slice(share.start, share.stop)
    its = Constraints(told.prefixes[mine], told.phrases[mine])
    written = decode_here(
        task, model, params, tokenizers, lines[mine], search, first=first + share.start, told=its, **how
    )
    found = [some for part in gather(written) for some in part]
    return [[restored(one) for one in some] for some in found]


def restored(one: list[Any]) -> DecodedText:
    """What JSON has made lists of."""
    text, score, log_prob, ids, alignment = one
    return DecodedText(text, score, log_prob, ids, alignment and Alignment(*alignment))


def decode_here(
    task: Any,
    model: Any,
    params: Params,
    tokenizers: Tokenizers,
    lines: Sequence[str],
    search: Search,
    *,
    wanted: int = 1,
    first: int = 1,
    told: Constraints = NO_CONSTRAINTS,
    aligned: bool = False,
    progress: Callable[[int], None] = lambda count: None,
    warn: Callable[[str], None] = warn,
) -> list[list[DecodedText]]:
    """The `wanted` best texts for each line, best first. A blank line gives one empty text, unsearched; a source that
    is longer than can be read is cut, and `warn` told of it. Lines are counted from `first`; `told` says for each
    what its texts must begin with and what must be in them.

    A task that answers by itself writes its answer.
    """
    if hasattr(task, "answer"):
        answers = task.answer(model, params, tokenizers, lines)
        progress(len(lines))
        return [[DecodedText(answer, 0.0, 0.0)] for answer in answers]
    target = tokenizers["target"]
    asked = [i for i, line in enumerate(lines) if line.strip()]
    requests = requests_of(task, model, tokenizers, [(i + first, lines[i]) for i in asked], search, warn)
    requests = list(constrained_requests(told, asked, requests, target))
    _, rules, options, weights = settled(search, target)
    results = generate(
        model,
        params,
        requests,
        eos=target.eos,
        beam=search.beam,
        wanted=search.beam if search.risk else wanted,
        weights=weights,
        rules=rules,
        options=options,
        groups=search.groups,
        seed=search.sample,
        batch_tokens=search.batch_tokens,
        progress=progress,
    )
    # A language model's text begins with its prompt; a translation's prompt is BOS alone.
    texts = [
        [DecodedText(target.decode([*request.prompt, *r.ids]), r.score, r.log_prob, r.ids) for r in some]
        for request, some in zip(requests, results, strict=True)
    ]
    if search.risk:
        texts = [least_risk(search.risk, some)[:wanted] for some in texts]
    if aligned:
        texts = with_alignments(model, params, tokenizers, requests, texts)
    written: list[list[DecodedText]] = [[DecodedText("", 0.0, 0.0)] for _ in lines]
    for i, some in zip(asked, texts, strict=True):
        if not some:
            warn(f"line {first + i}: nothing can be written, by all that is asked and forbidden: {lines[i][:40]}")
        written[i] = some or [DecodedText("", -math.inf, -math.inf)]
    return written
