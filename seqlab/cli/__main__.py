"""`python -m seqlab.cli`."""

from seqlab.cli.main import main

main()
