"""`seqlab embed`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from seqlab.cli.options import Checkpoint, Parts, RunFolder
from seqlab.cli.start import check_input, check_output, start_computing, use_parts
from seqlab.system.errors import SeqlabError


def embed(
    run: RunFolder,
    input: Annotated[Path, arg(metavar="F", help="Input file, one text per line; may be a .gz file.")],
    output: Annotated[
        Path, arg(metavar="F.npy", help="Output file: an array in NumPy's format, float32 [lines, D].")
    ],
    checkpoint: Checkpoint = "best",
    parts: Parts = None,
) -> None:
    """Write a vector for each line: the summary of an encoder.

    Example: seqlab embed runs/section --input documents.txt --output documents.npy
    """
    use_parts(parts)
    check_output(output, input)
    if output.suffix != ".npy":
        raise SeqlabError(f"--output {output}: the name of the output must end in .npy")
    check_input(input, "--input", read_twice=True)
    start_computing()
    from seqlab.decoding.embeddings import embed_file
    from seqlab.runs.loading import load

    lines, width = embed_file(load(run, checkpoint).trained, input, output)
    print(f"{output}: {lines:,} vectors of {width:,} numbers")
