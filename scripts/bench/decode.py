"""Measures decoding from text to text in sentences per second, for a run and for other toolkits with its weights.

    python scripts/bench/decode.py RUN --input F

RUN is a post-norm Transformer, which `seqlab export` can write for transformers and CTranslate2. All toolkits use the
same sentences and beam, and take turns in one process after a warm-up. Prints the medians of the rounds as a line of
JSON per row. The texts are compared first. Where they differ, our forced pass checks whether their scores are
near-ties (within 1e-4), which are counted. The other toolkits run with their best settings: sorted batches, the
fastest batch size, the allocator settings for PyTorch, and for CTranslate2 the faster of two ways to use the cores.
Its int8 is compared with our bfloat16.
"""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from rounds import CORES, in_turns, quickest, run_main, tell, with_allocator
from tyro.conf import Positional, arg

NEAR = 1e-4  # maximum difference of the mean log-probabilities per token of a near-tie
OTHERS, ROUNDED = 0.005, 0.2  # maximum fraction of texts that differ: in exact and in rounded arithmetic
LENGTH = 128  # maximum number of tokens of a text
SIZES = (32, 64, 128)  # batch sizes of the other toolkits
Texts = Callable[[list[str]], list[str]]


def main(
    run: Annotated[Positional[Path], arg(metavar="RUN")],
    input: Annotated[Path, arg(metavar="F", help="Source file, one text per line.")],
    sentences: int = 1000,
    rounds: int = 5,
    beam: int = 5,
) -> None:
    """Print a row for each other toolkit, for beam search and for greedy search."""
    from seqlab.data.text_files import read_lines
    from seqlab.interop.marian import export_marian
    from seqlab.runs import loading
    from seqlab.system.compilation import keep_compilations
    from seqlab.system.memory import keep_freed_memory

    keep_compilations()
    keep_freed_memory()
    loaded = loading.load(run)
    lines = list(read_lines(input))[:sentences]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "marian"
        export_marian(loaded, folder)
        for size in (beam, 1):
            kind = f"beam{size}" if size > 1 else "greedy"
            near, far = ("ct2", "hf") if size > 1 else ("greedy", "greedy")  # the search rules that ours follows
            ours = {rules: by_seqlab(loaded, size, rules) for rules in (near, far)}
            half = f"{near}, bfloat16"
            ours[half] = by_seqlab(loading.load(run, dtype="bfloat16"), size, near)
            peers = {
                "ctranslate2-float32": (near, ctranslate2(folder, lines, size, "float32")),
                "ctranslate2-int8": (half, ctranslate2(folder, lines, size, "int8")),
                "transformers-float32": (far, transformers(folder, lines, size)),
            }
            compared = {
                peer: compare(loaded, lines, ours[setting], theirs, exact=peer.endswith("float32"))
                for peer, (setting, theirs) in peers.items()
            }
            everyone = {**ours, **{peer: theirs for peer, (_, theirs) in peers.items()}}
            work = {who: functools.partial(texts, lines) for who, texts in everyone.items()}
            rates = in_turns(work, len(lines), rounds)
            for peer, (setting, _) in peers.items():
                notes = f"ours: {setting}; {compared[peer]}"
                tell(f"decode/{kind}/{peer}", rates, setting, peer, "sentences/s", notes)


def by_seqlab(run, beam: int, rules: str) -> Texts:
    preset = rules if beam > 1 else "seqlab"

    def texts(lines: list[str]) -> list[str]:
        return run.translate(lines, beam=beam, preset=preset, alpha=1.0, max_length=LENGTH)

    return texts


def transformers(folder: Path, lines: list[str], beam: int) -> Texts:
    """Returns decoding by transformers, with the batch size that is fastest for some of these lines."""
    import torch
    from transformers import Marian, MarianMTModel

    torch.set_num_threads(CORES)
    model, tokenizer = MarianMTModel.from_pretrained(folder).eval(), Marian.from_pretrained(folder)
    model.generation_config.max_length = None

    @torch.inference_mode()
    def written(lines: list[str], size: int) -> list[str]:
        order = sorted(range(len(lines)), key=lambda i: len(lines[i]))
        found = [""] * len(lines)
        for at in range(0, len(order), size):
            some = order[at : at + size]
            batch = tokenizer([lines[i] for i in some], return_tensors="pt", padding=True)
            ids = model.generate(
                **batch, num_beams=beam, max_new_tokens=LENGTH, length_penalty=1.0, early_stopping=False
            )
            for i, text in zip(some, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                found[i] = text
        return found

    return by_quickest(written, SIZES, lines[: 2 * max(SIZES)])


def by_quickest(written: Callable[[list[str], int], list[str]], sizes: Sequence[int], lines: list[str]) -> Texts:
    """Returns decoding with the batch size that is fastest for the lines."""
    best = quickest([functools.partial(written, lines, size) for size in sizes])
    return lambda lines: written(lines, sizes[best])


def ctranslate2(folder: Path, lines: list[str], beam: int, kind: str) -> Texts:
    """Returns decoding by CTranslate2 with its fastest setting for these lines: one translator on all cores or one
    per core, and the batch size.
    """
    import ctranslate2
    from ctranslate2.converters import TransformersConverter
    from sentencepiece import SentencePieceProcessor

    converted = folder.with_name("ctranslate2")
    if not converted.exists():
        TransformersConverter(str(folder)).convert(str(converted))
    source, target = (SentencePieceProcessor(model_file=str(folder / f"{side}.spm")) for side in ("source", "target"))

    def batched(inter: int, intra: int, size: int) -> Texts:
        translator = ctranslate2.Translator(
            str(converted), compute_type=kind, inter_threads=inter, intra_threads=intra
        )

        def texts(lines: list[str]) -> list[str]:
            pieces = [[*line, "</s>"] for line in source.encode(lines, out_type=str, num_threads=CORES)]
            results = translator.translate_batch(
                pieces, beam_size=beam, length_penalty=1.0, max_batch_size=size, max_decoding_length=LENGTH
            )
            return target.decode([result.hypotheses[0] for result in results], num_threads=CORES)

        return texts

    choices = [batched(*threads, size) for threads in {(1, CORES), (CORES, 1)} for size in SIZES]
    return choices[quickest([functools.partial(texts, lines) for texts in choices])]


def compare(run, lines: list[str], ours: Texts, theirs: Texts, *, exact: bool) -> str:
    """Counts the texts that are equal, equal up to the maximum length (where some toolkits count EOS as a token),
    near-ties, or different. Asserts that few are different, especially with `exact` arithmetic. Also serves as the
    warm-up.
    """
    from seqlab.decoding.log_probs import line_log_probs

    pairs = [(line, a, b) for line, a, b in zip(lines, ours(lines), theirs(lines), strict=True) if a != b]

    def cut(a: str, b: str) -> bool:
        sizes = map(len, run.codecs["target"].encode([a, b]))
        return (a.startswith(b) or b.startswith(a)) and min(sizes) >= LENGTH - 2

    differ = [(line, a, b) for line, a, b in pairs if not cut(a, b)]
    near = 0
    if differ:
        sources = [line for line, _, _ in differ]
        scores = [
            [values.mean() for _, values in line_log_probs(
                run.trained, sources, [pair[side] for pair in differ]
            )]
            for side in (1, 2)
        ]  # fmt: skip
        near = sum(abs(a - b) < NEAR for a, b in zip(*scores, strict=True))
    assert len(differ) - near <= (OTHERS if exact else ROUNDED) * len(lines), (len(differ), near)
    equal, ends = len(lines) - len(pairs), len(pairs) - len(differ)
    others = len(differ) - near
    return f"{len(lines)} texts: {equal} equal, {ends} truncated differently, {near} near-ties, {others} others"


if __name__ == "__main__":
    with_allocator()
    run_main(main)
