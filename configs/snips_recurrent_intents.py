"""Intents of spoken commands (SNIPS): a bidirectional LSTM.

    seqlab prepare snips/intents --folder DIR
    seqlab train configs/snips_recurrent_intents.py --out runs/snips-recurrent-intents

`DIR` contains the files of MiuLab/SlotGated-SLU, data/snips. The recurrent layer has the same size as in
configs/elmo_snips_intents.py, and is trained in the same way.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.snips import Snips
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.models.classifier_head import ClassifierHead
from seqlab.readers.words import Words
from seqlab.tasks.classification import Classification

experiment = Experiment(
    model=ClassifierHead(
        RecurrentEncoder(Words(dim=256), cell="lstm", dim=400, both_ways=True, dropout=0.5, dtype="bfloat16"),
        dropout=0.5,
    ),
    task=Classification(),
    data=Snips("intents"),
    steps=600,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=1024, buckets=4),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=2e-3, warmup=100),
    validation=Validation(every=150, metric="accuracy"),
)
