"""Laws of search with any generator."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from seqlab.codecs.sentencepiece import SentencePiece
from seqlab.config import Search
from seqlab.laws.equality import require, require_close
from seqlab.laws.subject import LENGTHS, SENTENCES, Subject, forced
from seqlab.search.generate import Result, generate
from seqlab.search.presets import Rules
from seqlab.search.requests import Request
from seqlab.search.settings import SearchSettings, split_settings

ALPHAS = (0.0, 0.6, 1.5)
EOS = SentencePiece.eos


def requests_of(s: Subject, limit: int, shortest: int = 1) -> list[Request]:
    """Returns a request for each row of the subject: its source, or the first `shortest` to 3 tokens of its prefix as
    the prompt.
    """
    if s.inputs is not None:
        sources = zip(s.inputs.ids.tolist(), LENGTHS, SENTENCES, strict=True)
        return [Request(ids[:n], [1], limit, sentences) for ids, n, sentences in sources]
    prefixes = enumerate(s.prefix.ids.tolist())
    return [Request(None, [1, *ids[: shortest - 1 + i % (4 - shortest)]], limit) for i, ids in prefixes]


def settings_of(
    *,
    count: int = 1,
    special: Sequence[int] = (),
    forbidden: Sequence[int] = (),
    rules: Rules | None = None,
    **fields: Any,
) -> SearchSettings:
    """The settings of a search with some fields of `config.Search`, or of a beam search by other rules."""
    settings = split_settings(Search(**fields), eos=EOS, special=special, forbidden=forbidden, count=count)
    if rules is None:
        return settings
    return settings._replace(static=settings.static._replace(rules=rules, greedy=False))


def search(s: Subject, requests: list[Request], **settings: Any) -> list[list[Result]]:
    """Calls `generate` on one device, since splitting rows over devices does not depend on the model."""
    return generate(s.model, s.params, requests, settings_of(**settings), devices=jax.local_devices()[:1])


def forced_logits(s: Subject, row: int, prefixes: list[list[int]]) -> np.ndarray:
    """Returns the logits [N T V] of N prefixes, with the inputs of one row of the subject."""
    width = max(map(len, prefixes))
    mask = np.arange(width) < np.array([len(prefix) for prefix in prefixes])[:, None]
    ids = np.array([prefix + [0] * (width - len(prefix)) for prefix in prefixes])
    return forced(s, s.params, np.full(len(ids), row), ids, mask)


def forced_scores(
    s: Subject, row: int, prompt: Any, answers: list[list[int]], alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores, normalized by ((5 + n) / 6) ** alpha, and the log-probabilities of answers, computed by
    forced passes.
    """
    logits = np.float64(forced_logits(s, row, [[*prompt, *answer[:-1]] for answer in answers]))
    log_probs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    log_probs -= logits.max(-1, keepdims=True)
    start = len(prompt) - 1
    sums = np.array([sum(log_probs[i, start + j, y] for j, y in enumerate(a)) for i, a in enumerate(answers)])
    return sums / ((5 + np.array([len(answer) for answer in answers])) / 6) ** alpha, sums


def returned_scores_are_the_models(s: Subject) -> None:
    """The scores of a beam of 3 are the forced log-probabilities of its tokens, divided by the length penalty once.
    The last token is the only EOS.
    """
    requests = requests_of(s, 5)
    for alpha in ALPHAS:
        results_by_row = search(s, requests, beam=3, alpha=alpha, count=3)
        for row, results in enumerate(results_by_row):
            require(all(r.ids.index(EOS) == len(r.ids) - 1 for r in results), "a text continues after EOS")
            scores, sums = forced_scores(s, row, requests[row].prompt, [r.ids for r in results], alpha)
            require_close([r.score for r in results], scores, f"scores at alpha {alpha}")
            require_close([r.log_prob for r in results], sums, f"log-probabilities at alpha {alpha}")


def a_beam_that_holds_everything_is_exact(s: Subject) -> None:
    """A beam that contains all answers of up to three tokens returns the best of them, as found by enumeration."""
    continuing_tokens = [token for token in range(s.model.vocabulary) if token != EOS]
    answers = [[*head, EOS] for n in range(3) for head in itertools.product(continuing_tokens, repeat=n)]
    requests = requests_of(s, 3, shortest=2)  # prompts of one token would compile another shape
    for alpha in ALPHAS:
        beam = len(continuing_tokens) * s.model.vocabulary  # room for every continuation of one token
        results_by_row = search(s, requests, beam=beam, alpha=alpha)
        for row, (best,) in enumerate(results_by_row):
            scores, _ = forced_scores(s, row, requests[row].prompt, answers, alpha)
            require_close(best.score, scores.max(), f"the best score at alpha {alpha}")
            require(scores[answers.index(best.ids)] > scores.max() - 1e-4, "the returned answer is not the best")


def greedy_is_a_beam_of_one(s: Subject) -> None:
    """Greedy search takes the best token at each step, and so does a beam of 1 that stops at the first finished
    hypothesis.
    """
    limit = 4  # one block of steps; longer texts would compile more shapes
    firsts = [[token] for token in range(3, s.model.vocabulary)]
    requests = [
        request._replace(prompt=[*request.prompt, *first]) for request in requests_of(s, limit) for first in firsts
    ]
    rules = {"greedy": None, "a beam of 1": Rules(stop="first")}
    results_by_name = {name: search(s, requests, beam=1, rules=rule) for name, rule in rules.items()}
    for index, (_, prompt, *_) in enumerate(requests):
        row = index // len(firsts)
        answer: list[int] = []
        while len(answer) < limit and EOS not in answer:
            logits = forced_logits(s, row, [[*prompt, *answer]])[0, len(prompt) + len(answer) - 1]
            answer.append(EOS if len(answer) + 1 == limit else int(logits.argmax()))
        for name, results in results_by_name.items():
            written = results[index][0].ids
            require(written == answer, f"search ({name}) returns {written}, not {answer}")
