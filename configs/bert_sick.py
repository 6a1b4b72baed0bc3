"""Fine-tuning of a small BERT encoder (Devlin et al. 2019) on the entailment of sentence pairs (SICK).

    seqlab train configs/bert_small.py --out runs/bert-small
    seqlab prepare sick --folder DIR
    seqlab train configs/bert_sick.py --out runs/bert-sick --initialize encoder ../bert-small encoder \
        --tokenizer runs/bert-small/codecs/source.sentencepiece

`DIR` contains the files of brmson/dataset-sts, data/sts/sick2014. The encoder reads each text alone: it was
pre-trained without next-sentence prediction, and has never seen two texts in one sequence.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.sick import Sick
from seqlab.encoders.bert import BertEncoder
from seqlab.models.pair_head import PairHead
from seqlab.tasks.pair_classification import PairClassification

experiment = Experiment(
    model=PairHead(
        BertEncoder(
            layers=3,
            dim=256,
            heads=4,
            hidden=1024,
            dropout=0.1,
            norm="pre",
            positions="sinusoidal",
            summary="mean",
            dtype="bfloat16",
        ),
        dropout=0.1,
    ),
    task=PairClassification(),
    data=Sick(),
    steps=800,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=2048, buckets=4),
    optimizer=Optimizer(name="adamw", weight_decay=0.01, beta2=0.98),
    schedule=Schedule(name="linear", peak=3e-4, warmup=80),
    validation=Validation(every=100, metric="accuracy"),
)
