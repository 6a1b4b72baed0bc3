"""`python -m seqlab`."""

from seqlab.cli.main import main

main()
