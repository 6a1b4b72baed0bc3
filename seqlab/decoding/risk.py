"""Minimum Bayes risk (Kumar & Byrne 2004): the mean similarity of each text to all texts. The n-grams that two texts
share are counted on the device, for all pairs at once.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seqlab.decoding.decoded_text import DecodedText


def expected_utility(metric: str, texts: Sequence[str]) -> np.ndarray:
    """Returns the mean score of each text [N] against all texts, including itself, in percent."""
    return UTILITIES[metric](texts).mean(1)


def pairwise_chrf(texts: Sequence[str]) -> np.ndarray:
    """Returns chrF2 (Popović 2015) of each text against each text [N N], as sacrebleu computes it for sentences."""
    common, counts = common_ngrams([codes("".join(text.split())) for text in texts], 6)  # [O N N], [O N]
    hypotheses, references = np.broadcast_arrays(counts[:, :, None], counts[:, None])
    counted = (hypotheses > 0) & (references > 0)
    orders = np.maximum(counted.sum(0), 1)
    precision = (np.where(counted, common, 0) / np.maximum(hypotheses, 1)).sum(0) / orders
    recall = (np.where(counted, common, 0) / np.maximum(references, 1)).sum(0) / orders
    return 100 * 5 * precision * recall / np.maximum(4 * precision + recall, 1e-16)


def pairwise_bleu(texts: Sequence[str]) -> np.ndarray:
    """Returns BLEU (Papineni et al. 2002) of each text against each text [N N], as sacrebleu computes it for
    sentences: 13a tokenization, exponential smoothing (Chen & Cherry 2014, method 3), and no n-grams longer than the
    text.
    """
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    words = [Tokenizer13a()(text).split() for text in texts]
    numbers = {word: i for i, word in enumerate(dict.fromkeys(itertools.chain(*words)), 1)}
    common, counts = common_ngrams([np.array([numbers[word] for word in line], int) for line in words], 4)
    hypotheses = np.broadcast_to(counts[:, :, None], common.shape)
    missed = (common == 0) & (hypotheses > 0)
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, axis=0), common) / np.maximum(hypotheses, 1)
    used = hypotheses > 0
    logs = np.where(used, np.log(np.maximum(smoothed, 1e-300)), 0.0).sum(0) / np.maximum(used.sum(0), 1)
    lengths = np.maximum(counts[0], 1e-9)
    brevity = np.minimum(0.0, 1 - lengths[None, :] / lengths[:, None])
    return np.where(common[0] > 0, 100 * np.exp(logs + brevity), 0.0)


def codes(text: str) -> np.ndarray:
    """Returns the characters of a text as numbers above 0."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64) + 1


UTILITIES: dict[str, Callable[[Sequence[str]], np.ndarray]] = {"chrf": pairwise_chrf, "bleu": pairwise_bleu}


def common_ngrams(rows: Sequence[np.ndarray], orders: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for n-grams of n = 1 to `orders`, the number that each pair of rows shares [O N N], where a repeated
    n-gram counts as often as it occurs in both rows; and the number in each row [O N]. Rows hold numbers above 0.
    """
    length = max(max(map(len, rows)), 1)
    padded = np.zeros((len(rows), length + orders), np.int64)
    for padding, row in zip(padded, rows, strict=True):
        padding[: len(row)] = row
    grams, numbers, counts = padded[:, :length], [], []
    for n in range(orders):
        if n:  # an n-gram is an (n-1)-gram and one more token, renumbered so that numbers stay small
            longer = padded[:, n : n + length]
            grams = np.where((grams > 0) & (longer > 0), grams * (padded.max() + 1) + longer, 0)
        grams = numbered(grams)
        counts.append((grams > 0).sum(1))
        numbers.append(occurrences(grams))
    # Few shapes: sizes are powers of two.
    largest = int(max(map(np.max, numbers)))
    places, highest = (1 << max(size, 63).bit_length() for size in (length, largest))
    numbers = np.stack([np.pad(x, ((0, 0), (0, places - x.shape[1]))) for x in numbers])
    return np.asarray(in_common(numbers, highest), np.float64), np.stack(counts).astype(np.float64)


def occurrences(grams: np.ndarray) -> np.ndarray:
    """Returns numbers [N L] above 0, all different within a row: the k-th occurrence of an n-gram has the same number
    in each row; 0 where `grams` is 0.
    """
    order = np.argsort(grams, axis=1, kind="stable")
    ordered = np.take_along_axis(grams, order, axis=1)
    at = np.arange(grams.shape[1])
    begins = np.where(np.diff(ordered, axis=1, prepend=-1) != 0, at, 0)
    nth = at - np.maximum.accumulate(begins, axis=1)
    pairs = np.where(ordered > 0, ordered * (grams.shape[1] + 1) + nth, 0)
    return numbered(pairs)


def numbered(values: np.ndarray) -> np.ndarray:
    """Returns consecutive numbers for values that are at least 0, in the same order; 0 stays 0."""
    return np.unique(np.append(values, 0), return_inverse=True)[1][:-1].reshape(values.shape)


@functools.partial(jax.jit, static_argnames="highest")
def in_common(numbers: Int[Array, "O N L"], highest: int) -> Float[Array, "O N N"]:
    """Returns how many of the numbers from 1 to `highest` each pair of rows shares."""
    rows = jnp.arange(numbers.shape[1])[:, None]

    def products(row_numbers: Int[Array, "N L"]) -> Float[Array, "N N"]:
        has = jnp.zeros((row_numbers.shape[0], highest + 1)).at[rows, row_numbers].set(1.0)[:, 1:]
        return has @ has.T

    return jax.lax.map(products, numbers)


def least_risk(metric: str, texts: list[DecodedText]) -> list[DecodedText]:
    """Returns the samples without duplicates, sorted by their mean similarity to all samples, which becomes their
    score.
    """
    if not texts:
        return []
    utility = expected_utility(metric, [sample.text for sample in texts])
    ordered = [texts[k]._replace(score=float(utility[k])) for k in np.argsort(-utility, kind="stable")]
    return list({sample.text: sample for sample in reversed(ordered)}.values())[::-1]
