"""Every preset against the rules of its toolkit in plain lists, by complete n-best lists."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from seqlab.search.presets import PRESETS
from seqlab.search.processors import NEVER
from tests.oracles import toolkits
from tests.tables import search_table

VOCABULARY, LENGTH, ROWS = 12, 6, 12
LIMITS = np.array([6, 5, 4, 3, 2, 1] * 2)
SWAPPED = np.arange(VOCABULARY)  # EOS has id 0, as in many Marian models
SWAPPED[[0, toolkits.EOS]] = toolkits.EOS, 0
SPECIAL = {"pad": toolkits.PAD, "bos": toolkits.BOS, "unk": toolkits.UNK}


@functools.partial(jax.jit, static_argnames=("preset", "beam", "top", "swapped"))
def search(table, alpha, word_penalty, preset, beam, top=False, swapped=False):
    rules, _, least, forbidden = PRESETS[preset]
    if top:
        rules = dataclasses.replace(rules, stop="top")
    ids = SWAPPED if swapped else np.arange(VOCABULARY)
    forbidden_ids = tuple(int(ids[SPECIAL[name]]) for name in forbidden)
    return search_table(
        table, LIMITS, eos=int(ids[toolkits.EOS]), beam=beam, minimum=least, alpha=alpha, word_penalty=word_penalty,
        nbest=beam, rules=rules, forbidden=forbidden_ids,
    )  # fmt: skip


def tables(kind: str) -> np.ndarray:
    random = np.random.default_rng(3)
    logits = random.normal(size=(ROWS, LENGTH, VOCABULARY, VOCABULARY)).astype(np.float32) * 1.5
    if kind == "ties":
        return np.zeros_like(logits)
    logits[..., toolkits.EOS] += {"random": 0.5, "eos likely": 2.5, "eos at once": 0.0, "no eos": -9.0}[kind]
    if kind == "eos at once":
        logits[:, 0, :, toolkits.EOS] += 6
    return logits


def logits_after(table, prefix):
    return table[len(prefix), prefix[-1] if prefix else 1].astype(np.float64)


@pytest.mark.sample(2)
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "seqlab"])
@pytest.mark.parametrize("beam", [2, 4])
def test_as_the_toolkit(preset, beam):
    oracle = getattr(toolkits, preset)
    lengths = set()
    for kind in ("random", "eos likely", "eos at once", "no eos", "ties"):
        table = tables(kind)
        for alpha, word_penalty in (
            (1.0, 0.0),
            (0.6, 0.0),
            (0.0, 0.0),
            *([(0.6, 0.3)] if preset == "marian" else []),
        ):
            found = search(table, alpha, word_penalty, preset, beam, top=preset == "ct2" and alpha == 0)
            for row, limit in enumerate(LIMITS):
                more = {"word_penalty": word_penalty} if preset == "marian" else {}
                truth = oracle(functools.partial(logits_after, table[row]), beam, int(limit), alpha, **more)
                scores = np.asarray(found.scores)[row]
                written = [
                    tuple(np.asarray(found.tokens)[row, k, : int(found.lengths[row, k])].tolist())
                    for k in range(beam)
                    if scores[k] > NEVER
                ]
                where = f"{kind}, alpha {alpha}, limit {limit}"
                assert written == [tokens for _, tokens in truth], where
                np.testing.assert_allclose(scores[: len(truth)], [s for s, _ in truth], atol=1e-5, err_msg=where)
                lengths |= {len(tokens) for _, tokens in truth}
    assert lengths >= set(range(2, LENGTH + 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_an_end_whose_id_is_0(preset):
    """An EOS with id 0 makes no difference, although unwritten positions are zero."""
    for kind in ("random", "eos likely", "no eos"):
        table = tables(kind)
        found = search(table, 1.0, 0.0, preset, 3)
        other = search(table[..., SWAPPED, :][..., SWAPPED], 1.0, 0.0, preset, 3, swapped=True)
        written = np.arange(LENGTH) < np.asarray(found.lengths)[..., None]
        np.testing.assert_array_equal(other.lengths, found.lengths)
        np.testing.assert_array_equal(np.where(written, SWAPPED[other.tokens], 0), found.tokens)
        np.testing.assert_allclose(other.scores, found.scores, rtol=1e-6)
    assert np.unique(found.lengths).size > 1
