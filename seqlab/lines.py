"""Lines of text in, texts out: what stands between a task's requests and search."""

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from seqlab.config import Search
from seqlab.errors import SeqlabError
from seqlab.hosts import gather, share_of
from seqlab.metrics.risk import expected_utility
from seqlab.search.forced import force, looked_at
from seqlab.search.generate import generate
from seqlab.search.processors import Options
from seqlab.search.requests import LONGEST, Request, most_tokens
from seqlab.search.rules import Preset, Rules, preset
from seqlab.search.searcher import Weights
from seqlab.tasks import cut_source
from seqlab.text import TextTokenizer, Tokenizers
from seqlab.types import Params

BLANK, END = "\u2581", "</s>"  # how tokens write a blank, and the end


class Alignment(NamedTuple):
    """Tokens of a source and of a text, EOS last where there is one; which of the source's each of the text's looked
    at most, and its share of the attention.
    """

    source: list[str]
    target: list[str]
    best: list[int]
    shares: list[float]


class Written(NamedTuple):
    """One decoded text, its score, normalized by length, and its log-probability; its tokens and their alignment. By
    least risk, the score is how much like all samples it is, in percent.
    """

    text: str
    score: float
    log_prob: float
    ids: Sequence[int] = ()
    alignment: Alignment | None = None


class Told(NamedTuple):
    """What texts must begin with, and phrases that must be in them: none, or as many as there are lines."""

    prefixes: Sequence[str] = ()
    phrases: Sequence[Sequence[str]] = ()


NOTHING_TOLD = Told()


def warn(message: str) -> None:
    print(f"seqlab: {message}", file=sys.stderr)


def decode_lines(
    task: Any,
    model: Any,
    params: Params,
    tokenizers: Tokenizers,
    lines: Sequence[str],
    search: Search,
    *,
    first: int = 1,
    told: Told = NOTHING_TOLD,
    **how: Any,
) -> list[list[Written]]:
    """What `decode_here` gives; of several processes each decodes a share of the lines, and has all in the end."""
    if jax.process_count() == 1:
        return decode_here(task, model, params, tokenizers, lines, search, first=first, told=told, **how)
    share = share_of(len(lines))
    mine = slice(share.start, share.stop)
    its = Told(told.prefixes[mine], told.phrases[mine])
    written = decode_here(
        task, model, params, tokenizers, lines[mine], search, first=first + share.start, told=its, **how
    )
    found = [some for part in gather(written) for some in part]
    return [[restored(one) for one in some] for some in found]


def restored(one: list[Any]) -> Written:
    """What JSON has made lists of."""
    text, score, log_prob, ids, alignment = one
    return Written(text, score, log_prob, ids, alignment and Alignment(*alignment))


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
    told: Told = NOTHING_TOLD,
    aligned: bool = False,
    progress: Callable[[int], None] = lambda count: None,
    warn: Callable[[str], None] = warn,
) -> list[list[Written]]:
    """The `wanted` best texts for each line, best first. A blank line gives one empty text, unsearched; a source that
    is longer than can be read is cut, and `warn` told of it. Lines are counted from `first`; `told` says for each
    what its texts must begin with and what must be in them.

    A task that answers by itself writes its answer.
    """
    if hasattr(task, "answer"):
        answers = task.answer(model, params, tokenizers, lines)
        progress(len(lines))
        return [[Written(answer, 0.0, 0.0)] for answer in answers]
    target = tokenizers["target"]
    asked = [i for i, line in enumerate(lines) if line.strip()]
    requests = requests_of(task, model, tokenizers, [(i + first, lines[i]) for i in asked], search, warn)
    requests = list(told_requests(told, asked, requests, target))
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
        [Written(target.decode([*request.prompt, *r.ids]), r.score, r.log_prob, r.ids) for r in some]
        for request, some in zip(requests, results, strict=True)
    ]
    if search.risk:
        texts = [least_risk(search.risk, some)[:wanted] for some in texts]
    if aligned:
        texts = with_alignments(model, params, tokenizers, requests, texts)
    written: list[list[Written]] = [[Written("", 0.0, 0.0)] for _ in lines]
    for i, some in zip(asked, texts, strict=True):
        if not some:
            warn(f"line {first + i}: nothing can be written, by all that is asked and forbidden: {lines[i][:40]}")
        written[i] = some or [Written("", -math.inf, -math.inf)]
    return written


def requests_of(
    task: Any,
    model: Any,
    tokenizers: Tokenizers,
    lines: Sequence[tuple[int, str]],
    search: Search,
    warn: Callable[[str], None],
) -> list[Request]:
    """What lines, with their numbers, ask of a search."""
    least = settled(search, tokenizers["target"])[0].least
    requests = task.requests([line for _, line in lines], tokenizers, search.max_length)
    return [
        bounded(readable(request, model, f"line {i}", line, warn), search, least)._replace(number=i)
        for request, (i, line) in zip(requests, lines, strict=True)
    ]


def settled(search: Search, tokenizer: TextTokenizer) -> tuple[Preset, Rules | None, Options, Weights]:
    """What a search asks of `generate`: the preset, rules, which greedy search has none of, options and weights."""
    found = preset(search.preset, search.length, search.stop, search.alpha)
    rules = None if search.beam == 1 and search.preset == "seqlab" else found.rules
    special = [getattr(tokenizer, name) for name in found.forbidden]
    forbidden = tuple(sorted({*special, *forbidden_ids(search.forbid, tokenizer)}))
    options = Options(forbidden, search.no_repeat, search.repetition, search.temperature, search.top_k, search.top_p)
    return found, rules, options, Weights(found.alpha, search.word_penalty, search.coverage, search.diversity)


def least_risk(metric: str, texts: list[Written]) -> list[Written]:
    """Samples without repetitions, those first that are most like all the others; their score is how much."""
    if not texts:
        return []
    utility = expected_utility(metric, [one.text for one in texts])
    ordered = [texts[k]._replace(score=float(utility[k])) for k in np.argsort(-utility, kind="stable")]
    return list({one.text: one for one in reversed(ordered)}.values())[::-1]


def with_alignments(
    model: Any, params: Params, tokenizers: Tokenizers, requests: Sequence[Request], texts: list[list[Written]]
) -> list[list[Written]]:
    """Texts with their alignments, by a forced pass. Raises for a model that attends to no source."""
    if not hasattr(model, "attention_weights"):
        raise SeqlabError("alignments are of one model that attends to a source")
    asked = [request for request, some in zip(requests, texts, strict=True) for _ in some]
    looked = iter(looked_at(model, params, asked, [one.ids for some in texts for one in some]))
    read, wrote = tokenizers["source"].piece, tokenizers["target"].piece

    def aligned(request: Request, one: Written) -> Written:
        best, shares = next(looked)
        names = [*map(read, request.source or ())], [*map(wrote, one.ids)]
        return one._replace(alignment=Alignment(*names, best.tolist(), shares.tolist()))

    return [[aligned(request, one) for one in some] for request, some in zip(requests, texts, strict=True)]


def word_links(alignment: Alignment) -> list[tuple[int, int]]:
    """Pairs of words of source and text, from 0 on, where a token of the text looked at one of the source."""
    source, target = words_of(alignment.source), words_of(alignment.target)
    links = {(source[i], target[j]) for j, i in enumerate(alignment.best)}
    return sorted((i, j) for i, j in links if i >= 0 and j >= 0)


def words_of(pieces: Sequence[str]) -> list[int]:
    """Which word each token is of; EOS at the end is of none (-1), as is a blank that stands alone."""
    found, word, begins = [], -1, True
    ended = list(pieces[-1:]) == [END]
    for piece in pieces[: len(pieces) - ended]:
        begins |= piece.startswith(BLANK)
        if piece.strip(BLANK):
            word, begins = word + begins, False
        found.append(word if piece.strip(BLANK) else -1)
    return [*found, -1] if ended else found


def readable(request: Request, model: Any, where: str, line: str, warn: Callable[[str], None]) -> Request:
    """The request, its source cut to what can be read. Raises for a prompt that is longer."""
    most = most_tokens(model)
    if len(request.prompt) > most:
        raise SeqlabError(f"{where} has more than the {most} tokens that can be read: {line[:40]}")
    if request.source is None or len(request.source) <= most:
        return request
    warn(f"{where} has {len(request.source)} tokens, and {most} are read: {line[:40]}")
    return cut_source(request, request.source, most)


def bounded(request: Request, search: Search, least: int) -> Request:
    """The request with the lengths that a search asks for."""
    most, least, size = request.limit, max(search.min_length, least), len(request.source or ())
    if search.max_ratio and size:
        by_ratio = math.ceil(min(search.max_ratio * size, LONGEST))
        most = min(most, by_ratio) if search.max_length else by_ratio
    return request._replace(limit=most, least=min(max(least, math.ceil(min(search.min_ratio * size, LONGEST))), most))


def told_requests(
    told: Told, asked: Sequence[int], requests: Sequence[Request], tokenizer: TextTokenizer
) -> Iterator[Request]:
    """The requests of the lines `asked`, with what they are told."""
    prefixes = tokenizer.encode([told.prefixes[i] for i in asked] if told.prefixes else [])
    phrases = [told.phrases[i] for i in asked] if told.phrases else []
    ids = iter(tokenizer.encode([*itertools.chain(*phrases)]))
    for n, request in enumerate(requests):
        prefix = prefixes[n] if prefixes else ()
        yield request._replace(prefix=prefix, phrases=[next(ids) for _ in phrases[n]] if phrases else ())


def forbidden_ids(words: Sequence[str], tokenizer: TextTokenizer) -> list[int]:
    """The ids of single tokens; "<pad>", "<s>" and "<unk>" are the special ones. Raises for a word that is none."""
    special = {"<pad>": tokenizer.pad, "<s>": tokenizer.bos, "<unk>": tokenizer.unk}
    ids = []
    for word, found in zip(words, tokenizer.encode(list(words)), strict=True):
        if word == END:
            raise SeqlabError(
                f"{END} is the end of every text, and cannot be forbidden: --min-length asks for long ones"
            )
        if word not in special and len(found) != 1:
            raise SeqlabError(f"{word!r} is {len(found)} tokens of this vocabulary; a forbidden word is one")
        ids.append(special[word] if word in special else found[0])
    return ids


def forced_lines(
    task: Any,
    model: Any,
    params: Params,
    tokenizers: Tokenizers,
    sources: Sequence[str],
    targets: Sequence[str],
    first: int = 1,
) -> list[tuple[list[int], np.ndarray]]:
    """Of each target, given its source ("" for a language model): its tokens, EOS last, and their log-probabilities.
    Raises for a line of more tokens than can be read; lines are counted from `first`.
    """
    requests, answers = to_be_forced(task, tokenizers, sources, targets)
    most = most_tokens(model)
    for i, (request, answer) in enumerate(zip(requests, answers, strict=True), first):
        if longest_side(request, answer) > most:
            raise SeqlabError(f"line {i} has more than the {most} tokens that can be read")
    return list(zip(answers, force(model, params, requests, answers), strict=True))


def to_be_forced(
    task: Any, tokenizers: Tokenizers, sources: Sequence[str], targets: Sequence[str]
) -> tuple[list[Request], list[list[int]]]:
    """The requests of sources, and targets as their answers, EOS last."""
    answers = [[*ids, tokenizers["target"].eos] for ids in tokenizers["target"].encode(targets)]
    return task.requests(sources, tokenizers, 0), answers


def longest_side(request: Request, answer: Sequence[int]) -> int:
    """How many positions a forced pass has, in the source or in the target."""
    return max(len(request.source or ()), len(request.prompt) + len(answer) - 1)


def is_causal(
    task: Any, model: Any, params: Params, tokenizers: Tokenizers, sources: Sequence[str], targets: Sequence[str]
) -> bool:
    """Whether tokens of some targets leave the probabilities of those before them as they were, to the bit. What is
    longer than can be read is not asked.
    """
    pairs = zip(*to_be_forced(task, tokenizers, sources, targets), strict=True)
    short = [pair for pair in pairs if longest_side(*pair) <= most_tokens(model)]
    requests, answers = [request for request, _ in short], [answer for _, answer in short]
    kept = [len(answer) // 2 for answer in answers]
    size = len(tokenizers["target"])
    others = [
        [*answer[:n], *((token + 1) % size for token in answer[n:])] for n, answer in zip(kept, answers, strict=True)
    ]
    before, after = (force(model, params, requests, some) for some in (answers, others))
    return all(np.array_equal(a[:n], b[:n]) for n, a, b in zip(kept, before, after, strict=True))
