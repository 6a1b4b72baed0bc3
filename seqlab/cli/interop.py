"""`seqlab import` and `seqlab export`."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from seqlab.cli.options import Checkpoint, Parts, RunFolder
from seqlab.cli.start import load_generator, start_computing, use_parts
from seqlab.system.checks import check_minimum


def import_run(
    kind: Annotated[Positional[Literal["marian"]], arg(metavar="KIND", help="Toolkit of the model: marian.")],
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="Folder of a Hugging Face MarianMTModel.")],
    out: Annotated[Path, arg(metavar="RUN", help="Folder of the new run.")],
) -> None:
    """Convert a model from another toolkit to a run.

    Example: seqlab import marian opus-mt-en-de --out runs/opus
    """
    from seqlab.interop.marian import import_marian
    from seqlab.system.files import check_new

    check_new(out)
    start_computing()
    run = import_marian(folder, out)
    print(f"{out}: {type(run.model).__name__}, {run.codecs['target'].size:,} tokens, from {kind}")


def export(
    run: RunFolder,
    out: Annotated[Path, arg(metavar="DIR", help="Output folder; it must not exist.")],
    to: Annotated[
        Literal["marian", "stablehlo"],
        arg(help="marian: a Hugging Face MarianMTModel. stablehlo: a program that contains the search."),
    ],
    checkpoint: Checkpoint = "best",
    rows: Annotated[int, arg(help="stablehlo: number of sentences in a batch.")] = 8,
    length: Annotated[int, arg(help="stablehlo: maximum number of tokens in a source and in an output.")] = 64,
    parts: Parts = None,
) -> None:
    """Convert the model of a run for another toolkit.

    Example: seqlab export runs/opus --to marian --out opus-marian
    """
    use_parts(parts)
    from seqlab.system.files import check_new

    check_new(out)
    check_minimum("--rows", rows, 1)
    check_minimum("--length", length, 1)
    start_computing()
    loaded = load_generator(run, checkpoint)
    if to == "marian":
        from seqlab.interop.marian import export_marian

        export_marian(loaded, out)
    else:
        from seqlab.interop.stablehlo import export_stablehlo

        export_stablehlo(loaded, out, rows, length)
    print(out)
