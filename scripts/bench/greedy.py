"""Measures greedy decoding with a GRU with attention, in seqlab and PyTorch, in sentences per second.

    python scripts/bench/greedy.py

Weights and sources are random, and decoding is from ids to ids. Every output has the maximum length, where seqlab
forces the last token to be </s>. At most 2 % of the outputs may differ, where two words are equally likely. The
toolkits take turns in one process. PyTorch uses its fastest batch size.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tyro
from rounds import CORES, fastest, in_turns, quickest, tell, with_allocator

SOURCE, ANSWER, BOS, EOS = 24, 32, 1, 2
SIZES = (64, 128, 256)  # batch sizes of PyTorch


def main(sentences: int = 512, rounds: int = 5) -> None:
    from seqlab.system.memory import keep_freed_memory

    keep_freed_memory()
    import torch
    from torch_models import twin
    from train import CASES, initial_params

    from seqlab.config import Search
    from seqlab.search.generate import generate
    from seqlab.search.requests import Request
    from seqlab.search.settings import split_settings

    model = CASES["gru_attention"].model
    params = initial_params(CASES["gru_attention"])
    sources = np.random.default_rng(0).integers(4, model.reader.vocabulary, (sentences, SOURCE))
    requests = [Request(source.tolist(), [BOS], ANSWER, minimum=ANSWER) for source in sources]
    torch.set_num_threads(CORES)
    theirs = twin(model, params).eval()

    def ours() -> list[list[int]]:
        return [best[0].ids for best in generate(model, params, requests, split_settings(Search(beam=1), eos=EOS))]

    def step(ids: Any, h: Any, values: Any, keys: Any) -> Any:
        y = theirs.words(ids)
        h, context = theirs.step(y, h, values, keys)
        logits = theirs.logits(y, h, context)
        logits[:, EOS] = -torch.inf
        return logits.argmax(-1), h

    def by_torch(step: Callable[..., Any], size: int) -> Callable[[], list[list[int]]]:
        @torch.inference_mode()
        def written() -> list[list[int]]:
            found = []
            for rows in torch.from_numpy(sources).split(size):
                values, keys, h = theirs.encode_memory(rows)
                ids, tokens = torch.full((len(rows),), BOS), []
                for _ in range(ANSWER):
                    ids, h = step(ids, h, values, keys)
                    tokens.append(ids)
                found += torch.stack(tokens, dim=1).tolist()
            return found

        return written

    size = SIZES[quickest([by_torch(step, size) for size in SIZES])]
    everyone = {
        "seqlab": ours,
        "float32": by_torch(step, size),
        "float32, compiled": by_torch(torch.compile(step), size),
    }
    answers = {who: [ids[:-1] for ids in work()] for who, work in everyone.items()}
    equal = {who: sum(map(list.__eq__, answers["seqlab"], found)) for who, found in answers.items()}
    assert min(equal.values()) > 0.98 * sentences, equal
    rates = in_turns(everyone, sentences, rounds)
    peer = fastest(rates, ["float32", "float32, compiled"])
    notes = f"{equal[peer]} of {sentences} outputs equal; {ANSWER} tokens each; PyTorch batches of {size}"
    tell("decode/gru_attention/greedy-torch-float32", rates, "seqlab", peer, "sentences/s", notes)


if __name__ == "__main__":
    with_allocator()
    tyro.cli(main)
