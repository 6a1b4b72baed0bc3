"""The same weights in seqlab and in the toolkits themselves: transformers, CTranslate2, Joey NMT, as they install."""

import dataclasses
import functools
import importlib.metadata
import json
import sys
import types

import numpy as np
import pytest

from seqlab.laws.tasks import tiny_tokenizer
from seqlab.laws.training import tiny_experiment
from seqlab.runs import loading
from seqlab.search.processors import NEVER
from tests.command import call, save_untrained
from tests.search import test_presets

# What the others warn of is their own affair.
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]

SENTENCES = ["one two", "1 2 3", "Monday, the 7th of May", "three days ago", "in 4 hours", "now", "x" * 20]
LENGTH = 12


def equal(ours, theirs):
    """The same n-best lists; where two scores of a list lie within 1e-4 their order is open."""
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose([score for _, score in one], [score for _, score in other], atol=2e-4)
        near = np.diff([score for _, score in one]) > -1e-4
        for k, (text, _) in enumerate(one):
            open_ = near[max(k - 1, 0) : k + 1].any()
            assert text == other[k][0] or open_


def lists(run, **search):
    """N-best lists of (ids, score)."""
    found = run.write(SENTENCES, search["beam"], max_length=LENGTH, **search)
    return [[(tuple(one.ids), one.score) for one in some] for some in found]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run of ours with large parameters, exported; and a model made by transformers, imported."""
    home = tmp_path_factory.mktemp("home")
    experiment = tiny_experiment()
    experiment = dataclasses.replace(experiment, model=experiment.model.clone(norm="post"))
    codecs = dict.fromkeys(("source", "target"), tiny_tokenizer())
    save_untrained(experiment, codecs, home / "ours", deviation=0.3)
    assert call(home, "export", "ours", "--to", "marian", "--out", "ours-marian") == 0
    make_marian(home / "theirs-marian")
    assert call(home, "import", "marian", "theirs-marian", "--out", "theirs") == 0
    return home


def make_marian(folder):
    """A MarianMTModel of random weights, large enough that near-ties are rare; its own order of ids, the pad last."""
    import torch
    from transformers import Marian, MarianConfig, MarianMTModel

    folder.mkdir()
    tokenizer = tiny_tokenizer()
    pieces = [name for name in tokenizer.names if name not in ("<pad>", "<s>", "</s>", "<unk>")]
    names = ["</s>", "<unk>", *pieces[::-1], "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "model.spm").write_bytes(tokenizer.model)
    sides = [str(folder / "model.spm")] * 2
    Marian(*sides, str(folder / "vocab.json"), model_max_length=64).save_pretrained(folder)
    pad = len(names) - 1
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(names), d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
            activation_function="swish", scale_embedding=True, pad_token_id=pad, decoder_start_token_id=pad,
            eos_token_id=0, forced_eos_token_id=None, bad_words_ids=[[pad]],
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter += 0.4 * torch.randn_like(parameter)
        model.model.shared.weight[pad] = 0
        model.final_logits_bias[0, 0] = 1.0
        model.final_logits_bias[0, pad] = -1e4
    model.save_pretrained(folder)


def by_transformers(folder, beam, alpha):
    import torch
    from transformers import Marian, MarianMTModel

    model, tokenizer = MarianMTModel.from_pretrained(folder).eval(), Marian.from_pretrained(folder)
    model.generation_config.forced_eos_token_id = None
    model.generation_config.max_length = None
    found = []
    for sentence in SENTENCES:
        with torch.no_grad():
            result = model.generate(
                **tokenizer([sentence], return_tensors="pt"), num_beams=beam, num_return_sequences=beam,
                length_penalty=alpha, early_stopping=False, max_new_tokens=LENGTH, return_dict_in_generate=True,
                output_scores=True,
            )  # fmt: skip
        found.append([])
        for ids, score in zip(result.sequences.tolist(), result.sequences_scores.tolist(), strict=True):
            eos = model.config.eos_token_id
            found[-1].append((tuple(ids[1 : ids.index(eos) + 1] if eos in ids else ids[1:]), score))
    return found


@pytest.mark.parametrize("name", ["ours", "theirs"])
@pytest.mark.parametrize(("beam", "alpha"), [(2, 1.0), (4, 0.6), (4, 0.0)])
def test_transformers(home, name, beam, alpha):
    ours = lists(loading.load(home / name), beam=beam, alpha=alpha, preset="hf")
    equal(ours, by_transformers(home / f"{name}-marian", beam, alpha))


@pytest.mark.parametrize("name", ["ours", "theirs"])
@pytest.mark.parametrize(("beam", "alpha"), [(2, 1.0), (4, 0.6), (4, 0.0)])
def test_ctranslate2(home, name, beam, alpha):
    import ctranslate2
    from ctranslate2.converters import TransformersConverter
    from transformers import Marian

    folder = home / f"{name}-marian"
    TransformersConverter(str(folder)).convert(str(home / "converted"), force=True)
    tokenizer = Marian.from_pretrained(folder)
    translator = ctranslate2.Translator(str(home / "converted"), compute_type="float32", intra_threads=1)
    found = []
    for sentence in SENTENCES:
        source = tokenizer.convert_ids_to_tokens(tokenizer(sentence).input_ids)
        (result,) = translator.translate_batch(
            [source], beam_size=beam, num_hypotheses=beam, length_penalty=alpha, max_decoding_length=LENGTH,
            return_scores=True, return_end_token=True,
        )  # fmt: skip
        ids = [tuple(tokenizer.convert_tokens_to_ids(tokens)) for tokens in result.hypotheses]
        found.append(list(zip(ids, result.scores, strict=True)))
    equal(lists(loading.load(home / name), beam=beam, alpha=alpha, preset="ct2"), found)


@pytest.fixture(scope="module")
def joey():
    """Joey NMT's search; what it imports for its plots and its training need not be there."""
    for name in ("torch.utils.tensorboard", "joeynmt.plotting", "subword_nmt", "subword_nmt.apply_bpe"):
        empty = types.ModuleType(name)
        for wanted in ("SummaryWriter", "plot_heatmap", "apply_bpe", "BPE"):
            setattr(empty, wanted, None)
        sys.modules[name] = empty
    sys.modules["importlib_metadata"] = importlib.metadata
    from joeynmt import search

    return search


class Table:
    """A model of Joey NMT's that looks its logits up, by the number of the sentence, in a table [T V V]."""

    bos_index, eos_index, pad_index, unk_index, sep_index = 1, 2, 0, 3, None

    def __init__(self, tables):
        from joeynmt.decoders import TransformerDecoder
        from torch import nn

        self.decoder = TransformerDecoder.__new__(TransformerDecoder)
        nn.Module.__init__(self.decoder)
        self.decoder._output_size = tables.shape[-1]
        self.tables = tables
        self.specials, self.lang_tags = [0, 1, 2, 3], []

    def __call__(self, return_type, trg_input, encoder_output, **_):
        import torch

        rows = encoder_output[:, 0, 0].long().tolist()
        logits = torch.zeros(*trg_input.shape, self.tables.shape[-1], dtype=torch.float64)
        for i, (row, tokens) in enumerate(zip(rows, trg_input.tolist(), strict=True)):
            logits[i, -1] = torch.tensor(self.tables[row, len(tokens) - 1, tokens[-1]], dtype=torch.float64)
        return logits, None, None, None


@pytest.mark.parametrize("beam", [2, 4])
@pytest.mark.parametrize("alpha", [0.6, 1.0])
def test_joey(joey, beam, alpha):
    import torch

    length = test_presets.LENGTH
    for kind in ("random", "eos likely", "eos at once", "no eos"):
        tables = test_presets.tables(kind)
        find = functools.partial(test_presets.search, tables, alpha, 0.0, "joey", beam)
        ours = find()
        for row in np.flatnonzero(np.asarray(test_presets.LIMITS) == length):
            theirs, scores, _ = joey.beam_search(
                Table(tables), beam, torch.full((1, 2, 1), float(row)), None, torch.ones(1, 1, 2, dtype=torch.bool),
                length, alpha, n_best=beam, return_prob="hyp",
            )  # fmt: skip
            written = [
                (tuple(np.asarray(ours.tokens)[row, k, : int(ours.lengths[row, k])].tolist()), float(score))
                for k, score in enumerate(np.asarray(ours.scores)[row])
                if score > NEVER
            ]
            for (tokens, score), other, value in zip(written, theirs, np.ravel(scores), strict=False):
                assert tokens == tuple(int(t) for t in other)[: len(tokens)]
                assert score == pytest.approx(float(value), abs=1e-4)
