"""Greedy decoding by a GRU with attention: ours and the same model in PyTorch, in sentences a second.

    python scripts/bench/greedy.py

Random weights and sources; an answer has its most tokens, of which ours makes </s> the last. From ids to ids, which
must be the same. They take turns in one process.
"""

import os

import numpy as np
import tyro
from rounds import fastest, in_turns, tell, with_allocator

SOURCE, ANSWER, ROWS, BOS, EOS = 24, 32, 64, 1, 2


def main(sentences: int = 512, rounds: int = 7) -> None:
    from seqlab.memory import keep_freed_memory

    keep_freed_memory()
    import torch
    from torch_models import twin
    from train import CASES, initial_params

    from seqlab.search.generate import generate
    from seqlab.search.requests import Request

    model = CASES["gru_attention"].model
    params = initial_params(CASES["gru_attention"])
    sources = np.random.default_rng(0).integers(4, model.source_vocabulary, (sentences, SOURCE))
    requests = [Request(source.tolist(), [BOS], ANSWER, least=ANSWER) for source in sources]
    torch.set_num_threads(os.cpu_count() or 1)
    theirs = twin(model, params).eval()

    def ours() -> list[list[int]]:
        return [best[0].ids for best in generate(model, params, requests, eos=EOS, beam=1)]

    def eager() -> list[list[int]]:
        return written(theirs.step)

    compiled_step = torch.compile(theirs.step)

    def compiled() -> list[list[int]]:
        return written(compiled_step)

    @torch.inference_mode()
    def written(step) -> list[list[int]]:
        found = []
        for rows in torch.from_numpy(sources).split(ROWS):
            values, keys, h = theirs.remember(rows)
            ids, tokens = torch.full((len(rows),), BOS), []
            for _ in range(ANSWER):
                y = theirs.words(ids)
                h, context = step(y, h, values, keys)
                logits = theirs.logits(y, h, context)
                logits[:, EOS] = -torch.inf
                ids = logits.argmax(-1)
                tokens.append(ids)
            found += torch.stack(tokens, dim=1).tolist()
        return found

    everyone = {"seqlab": ours, "float32": eager, "float32, compiled": compiled}
    answers = {who: work() for who, work in everyone.items()}
    equal = sum(a[:-1] == b[:-1] for a, b in zip(answers["seqlab"], answers["float32"], strict=True))
    assert equal > 0.98 * sentences, equal  # two words may be as likely as each other, to the last digits
    rates = in_turns(everyone, sentences, rounds)
    peer = fastest(rates, ["float32", "float32, compiled"])
    notes = f"{equal} of {sentences} answers equal; {ANSWER} tokens each"
    tell("decode/gru_attention/greedy-torch-float32", rates, "seqlab", peer, "sentences/s", notes)


if __name__ == "__main__":
    with_allocator()
    tyro.cli(main)
