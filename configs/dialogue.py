r"""Replies in dialogues, on a few sample dialogues to test the setup.

    seqlab train configs/dialogue.py --out runs/dialogue
    printf 'Good morning.\tGood morning. How are you?\n' | seqlab decode runs/dialogue

A hierarchical encoder of words and turns (Serban et al. 2016), with attention over both. A line of a .jsonl file has
the turns so far, separated by newlines, and the reply. For your own data, use --data.train my.jsonl
--data.validation dev.jsonl, and raise the sizes.
"""

from seqlab.config import Batching, Experiment, Schedule, Text, Validation
from seqlab.datasets.local_files import LocalFiles
from seqlab.models.hierarchical_seq2seq import HierarchicalSeq2Seq
from seqlab.tasks.dialogue import Dialogue

experiment = Experiment(
    model=HierarchicalSeq2Seq(dim=64, sentences=32, dropout=0.1),
    task=Dialogue(),
    data=LocalFiles(
        train="data/samples/dialogue.train.jsonl",
        validation="data/samples/dialogue.validation.jsonl",
        source="turns",
        target="reply",
    ),
    steps=200,
    text=Text(kind="char", size=400),
    batching=Batching(tokens=2048, buckets=2),
    schedule=Schedule(peak=3e-3, warmup=20),
    validation=Validation(every=100),
)
