"""Summarization of Debian package descriptions into one-line synopses, with a Transformer.

    seqlab train configs/debian_synopsis.py --out runs/synopsis
    seqlab evaluate runs/synopsis

58,000 descriptions of `debian_descriptions/synopsis`, truncated to 64 tokens. The results in docs/results.md
(row `synopsis`) compare its scores with the first sentence, truncated to the mean length of a synopsis.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Search, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.models.transformer import Transformer
from seqlab.tasks.summarization import Summarization

experiment = Experiment(
    model=Transformer(
        encoder_layers=3, decoder_layers=3, dim=256, heads=4, hidden=1024, dropout=0.1, dtype="bfloat16"
    ),
    task=Summarization(source_tokens=64),
    data=DebianDescriptions("synopsis"),
    steps=8000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=4096, buckets=6, max_length=80),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=1e-3, warmup=500),
    search=Search(max_length=40),
    validation=Validation(every=2000, examples=300),
)
