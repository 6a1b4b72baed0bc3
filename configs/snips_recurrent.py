"""Slots of spoken commands (SNIPS): a bidirectional LSTM.

    seqlab prepare snips/slots --folder DIR
    seqlab train configs/snips_recurrent.py --out runs/snips-recurrent

`DIR` contains the files of MiuLab/SlotGated-SLU, data/snips. The recurrent layer has the same size as in
configs/elmo_snips.py, and is trained in the same way.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.snips import Snips
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.models.tagger_head import TaggerHead
from seqlab.readers.words import Words
from seqlab.tasks.word_tagging import WordTagging

experiment = Experiment(
    model=TaggerHead(
        RecurrentEncoder(Words(dim=256), cell="lstm", dim=400, both_ways=True, dropout=0.5, dtype="bfloat16")
    ),
    task=WordTagging(),
    data=Snips("slots"),
    steps=1200,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=1024, buckets=4),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=2e-3, warmup=100),
    validation=Validation(every=300, metric="span_f1"),
)
