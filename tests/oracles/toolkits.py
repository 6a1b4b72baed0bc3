"""Beam search with the rules of other toolkits, for one sentence, using lists. Each function cites the source of its
rules.

`logits(prefix)` [V] replaces the model; K is the beam size; `limit` is the maximum number of tokens, including EOS;
`alpha` is the exponent of the length. Functions return (score, tokens) of at most K hypotheses, best first. Ties go
to the better hypothesis, then to the smaller token.
"""

import math

import numpy as np

from tests.oracles.search import log_softmax

PAD, BOS, EOS, UNK = range(4)
IMPOSSIBLE = -math.inf


def best(scored, count):
    return sorted((one for one in scored if one[0] > IMPOSSIBLE), key=lambda one: -one[0])[:count]


def extended(alive, log_probs):
    """Returns all continuations of all hypotheses, with their sums."""
    return [(s + x, (*p, token)) for s, p in alive for token, x in enumerate(log_probs(p))]


def without(log_probs, *tokens):
    masked = log_probs.copy()
    masked[list(tokens)] = IMPOSSIBLE
    return masked


def ends(one):
    return one[1][-1] == EOS


def gnmt(logits, beam, limit, alpha):
    """tensor2tensor 1.15.7, utils/beam_search.py: `grow_topk`, `grow_alive`, `grow_finished`, `_is_not_finished`."""

    def penalty(n):
        return ((5 + n) / 6) ** alpha

    alive, finished = [(0.0, ())], []
    for n in range(1, limit + 1):
        found = best(extended(alive, lambda p: log_softmax(logits(p))), 2 * beam)
        finished = best([*finished, *((s / penalty(n), p) for s, p in found if p[-1] == EOS)], beam)
        alive = [one for one in found if not ends(one)][:beam]
        if len(finished) == beam and finished[-1][0] > alive[0][0] / penalty(limit):
            break
    return finished or alive


def fairseq(logits, beam, limit, alpha):
    """fairseq 0.12.2, sequence_generator.py: `_generate`, `finalize_hypos`; search.py: `BeamSearch.step`. Its max_len
    excludes EOS, so it is `limit` - 1.
    """
    alive, finished = [(0.0, ())], []
    for n in range(1, limit + 1):

        def log_probs(p, n=n):
            x = without(log_softmax(logits(p)), PAD)
            if n == limit:
                return np.where(np.arange(len(x)) == EOS, x, IMPOSSIBLE)
            return without(x, EOS) if n == 1 else x

        found = best(extended(alive, log_probs), 2 * beam)
        finished += [(s / n**alpha, p) for s, p in found[:beam] if p[-1] == EOS][: beam - len(finished)]
        if len(finished) == beam:
            break
        alive = [one for one in found if not ends(one)][:beam]
    return best(finished, beam)


def joey(logits, beam, limit, alpha):
    """Joey NMT 2.3.0, search.py: `beam_search`. Its padding of the list with [UNK] is omitted."""

    def penalty(n):
        return ((5 + n) / 6) ** alpha

    alive, flags, finished = [(0.0, ())], [False] * beam, []
    for n in range(1, limit + 1):

        def log_probs(p, n=n):
            return without(log_softmax(logits(p)), PAD, BOS, *([EOS] if n == 1 else []))

        alive = best(extended(alive, log_probs), beam)
        flags = [flag or ends(one) or n == limit for flag, one in zip(flags, alive, strict=True)]
        for flag, (s, p) in zip(flags, alive, strict=True):
            unfinished = EOS not in p and n == limit
            if flag and (unfinished or (p[-1] == EOS and p.count(EOS) == 1)):
                finished.append((s / penalty(n), p))
        if all(flags):
            break
    return best(finished, beam)


def marian(logits, beam, limit, alpha, word_penalty=0.0):
    """Marian 1.12.42, translator/beam_search.cpp: `search`, `toHyps`, `purgeBeams`; history.h: `add`."""
    alive, finished = [(0.0, ())], []
    room = beam
    for n in range(1, limit + 1):
        found = best(extended(alive, lambda p: without(log_softmax(logits(p)), UNK)), room)
        finished += [((s - word_penalty * n) / n**alpha, p) for s, p in found if p[-1] == EOS or n == limit]
        alive = [one for one in found if not ends(one)]
        room = len(alive)
        if not alive:
            break
    return best(finished, beam)


def ct2(logits, beam, limit, alpha):
    """CTranslate2 4.8.5, decoding.cc: `BeamSearch::search`, `finalize_result`, with as many hypotheses requested as
    there are in the beam. Without a length penalty it may stop early.
    """
    alive, finished, topped = [(0.0, ())], [], False
    for n in range(1, limit + 1):

        def log_probs(p, n=n):
            return log_softmax(without(logits(p), EOS) if n == 1 else logits(p))

        found = best(extended(alive, log_probs), 2 * beam)
        finishing = [one for one in found[:beam] if ends(one) or n == limit]
        topped |= found[0] in finishing
        finished += [(s / n**alpha, p) for s, p in finishing]
        if len(finished) >= beam and (alpha != 0 or topped):
            break
        alive = [one for one in found if not ends(one)][:beam]
    return best(finished, beam)


def hf(logits, beam, limit, alpha):
    """transformers 5.23.0, generation/utils.py: `_beam_search`, `_update_finished_beams`,
    `_check_early_stop_heuristic`; early_stopping=False, and no forced EOS.
    """
    alive, finished = [(0.0, ())], []
    for n in range(1, limit + 1):
        found = best(extended(alive, lambda p: log_softmax(logits(p))), 2 * beam)
        finishing = [(s / n**alpha, p) for s, p in found[:beam] if p[-1] == EOS or n == limit]
        finished = best([*finished, *finishing], beam)
        alive = [one for one in found if not ends(one)][:beam]
        if len(finished) == beam and not alive[0][0] / n**alpha > finished[-1][0]:
            break
    return finished
