"""Pre-training of a small BERT encoder (Devlin et al. 2019) on English package descriptions.

    seqlab train configs/bert_small.py --out runs/bert-small

Masked tokens in the 3.2 million words of `debian_descriptions/text`.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.encoders.bert import BertEncoder
from seqlab.models.masked_lm import MaskedLM
from seqlab.tasks.masked_tokens import MaskedTokens

experiment = Experiment(
    model=MaskedLM(
        BertEncoder(
            layers=4, dim=256, heads=4, hidden=1024, dropout=0.1, norm="pre", positions="sinusoidal", dtype="bfloat16"
        ),
        dtype="bfloat16",
    ),
    task=MaskedTokens(),
    data=DebianDescriptions("text"),
    steps=8000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=1024, buckets=5),
    optimizer=Optimizer(name="adamw", weight_decay=0.01, beta2=0.98),
    schedule=Schedule(name="linear", peak=7e-4, warmup=300),
    validation=Validation(every=2000, examples=400, beam=0),
)
