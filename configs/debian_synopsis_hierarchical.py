"""Summarization of Debian package descriptions into one-line synopses, with attention over words and sentences.

    seqlab train configs/debian_synopsis_hierarchical.py --out runs/synopsis-hierarchical
    seqlab evaluate runs/synopsis-hierarchical

Data, vocabulary, batches, updates and schedule are the same as in configs/debian_synopsis.py, the flat Transformer.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Search, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.models.hierarchical_seq2seq import HierarchicalSeq2Seq
from seqlab.tasks.summarization import Summarization

experiment = Experiment(
    model=HierarchicalSeq2Seq(cell="gru", dim=384, sentences=12, dropout=0.2, dtype="bfloat16"),
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
