"""`seqlab import` and `seqlab export`."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from seqlab.cli.options import Checkpoint, Parts, RunFolder
from seqlab.cli.start import load_generator, start_computing, use_parts
from seqlab.system.checks import check_minimum


def import_run(
    kind: Positional[Literal["marian"]],
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="A Hugging Face folder of a MarianMTModel.")],
    out: Annotated[Path, arg(metavar="RUN", help="The run's folder.")],
) -> None:
    """Makes a run of another toolkit's model, to decode with."""
    from seqlab.interop.marian import import_marian
    from seqlab.system.files import check_new

    check_new(out)
    start_computing()
    run = import_marian(folder, out)
    print(f"{out}: {type(run.model).__name__}, {run.codecs['target'].size:,} tokens, from {kind}")


def export(
    run: RunFolder,
    out: Annotated[Path, arg(metavar="DIR", help="The new folder.")],
    to: Annotated[Literal["marian", "stablehlo"], arg(help="A Hugging Face folder; or the search as a program.")],
    checkpoint: Checkpoint = "best",
    rows: Annotated[int, arg(help="stablehlo: sentences at once.")] = 8,
    length: Annotated[int, arg(help="stablehlo: most tokens of a source, and of a text.")] = 64,
    parts: Parts = None,
) -> None:
    """Writes a run's model for another toolkit."""
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
