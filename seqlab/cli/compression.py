"""`seqlab distill`, `merge`, `prune` and `quantize`."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from seqlab.cli.options import (
    DEFAULT_PLACES,
    NO_SEARCH,
    Checkpoint,
    Parts,
    PlaceOptions,
    RunFolder,
    SearchOptions,
)
from seqlab.cli.start import load_generator, start_computing, use_parts

NewRun = Annotated[Path, arg(metavar="RUN2", help="Folder of the new run.")]


def distill(
    run: RunFolder,
    out: Annotated[Path, arg(metavar="DIR", help="Folder of the new data.")],
    search: SearchOptions = NO_SEARCH,
    checkpoint: Checkpoint = "best",
    places: PlaceOptions = DEFAULT_PLACES,
) -> None:
    """Decode the training data of a run, to train a student on the decoded texts.

    DIR/train.jsonl pairs each source with the best text that the run decodes. The other splits are copied. Repeat the
    command to continue after an interruption. Search options that are not given keep the run's values.

    Example: seqlab distill runs/quickstart --out data/distilled --beam 5
    """
    use_parts(places.parts)
    start_computing()
    from seqlab.data.records import prepare
    from seqlab.decoding import distilled_data

    loaded = load_generator(run, checkpoint)
    settings = loaded.search_config(**dataclasses.asdict(search))
    data = prepare(loaded.experiment.data, places.data_dir)
    for split, count in distilled_data.distill(loaded.trained, settings, data, out).items():
        print(f"{out / split}.jsonl: {count:,} examples")


def merge(run: RunFolder, out: NewRun, parts: Parts = None) -> None:
    """Write a plain run with the parameters that a parametrized run, such as an adapter, decodes with.

    The new run can decode, and other runs can start from it with --init-from.

    Example: seqlab merge runs/adapted --out runs/merged
    """
    use_parts(parts)
    start_computing()
    from seqlab.runs import derived

    step = derived.merge(run, out)
    print(f"{out}: parameters of step {step}, without a parametrization")


def prune(
    run: RunFolder,
    out: NewRun,
    share: Annotated[float, arg(metavar="SHARE", help="Share of the weights or heads to set to zero.")],
    per_matrix: Annotated[
        bool, arg(help="Apply the share to each matrix separately, or with --heads to each attention layer.")
    ] = False,
    heads: Annotated[bool, arg(help="Prune whole attention heads.")] = False,
    pattern: Annotated[
        str | None,
        arg(
            metavar="REGEX",
            help="Prune the matrices whose path contains a match.",
            help_behavior_hint="(default: kernels, but no embedding tables)",
        ),
    ] = None,
    parts: Parts = None,
) -> None:
    """Set the weights with the smallest magnitude to zero, in a new run.

    To continue training without changing the zeros, start a run from the new one with --init-from and the
    parametrization KeepZeros.

    Example: seqlab prune runs/quickstart --out runs/pruned --share 0.5
    """
    use_parts(parts)
    start_computing()
    from seqlab.parametrizations.parametrization import KERNELS
    from seqlab.runs import pruning

    kinds = pruning.prune(run, out, share, KERNELS if pattern is None else pattern, per_matrix, heads)
    width = max(len(zeros.kind) for zeros in kinds)
    print(f"{'kind':{width}}  matrices     weights   zeros")
    for kind, matrices, weights, zeros in [*kinds, pruning.total(kinds)]:
        print(f"{kind:{width}}  {matrices:8}  {weights:10,}  {zeros / weights:6.1%}")
    print(out)


def quantize(
    run: RunFolder,
    out: NewRun,
    bits: Annotated[int, arg(metavar="8|4", help="Number of bits of a weight.")] = 8,
    parts: Parts = None,
) -> None:
    """Store the matrices and embedding tables of a run as integers of 8 or 4 bits and scales, in a new run.

    Example: seqlab quantize runs/quickstart --out runs/int8 --bits 8
    """
    use_parts(parts)
    start_computing()
    from seqlab.runs import quantization

    sizes = quantization.quantize(run, out, bits)
    before, after, *checkpoints = (size / 2**20 for size in sizes[:4])
    print(f"parameters: {before:.2f} MiB -> {after:.2f} MiB ({after / before:.0%})")
    print(f"checkpoint on disk: {checkpoints[0]:.2f} MiB -> {checkpoints[1]:.2f} MiB")
    print(f"root mean square error of the parameters: {sizes.error:.2%}")
    print(out)
