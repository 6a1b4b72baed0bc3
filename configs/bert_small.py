"""Pre-training of a small BERT encoder (Devlin et al. 2019) on English package descriptions.

    seqlab train configs/bert_small.py --out runs/bert-small

It predicts masked tokens in the 3.2 million words of `debian_descriptions/text`, in lower case. Masking 30% instead
of 15% gives twice as many predictions in the same time.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.encoders.bert import BertEncoder
from seqlab.models.masked_lm import MaskedLM
from seqlab.tasks.masked_tokens import MaskedTokens

experiment = Experiment(
    model=MaskedLM(
        BertEncoder(
            layers=3, dim=256, heads=4, hidden=1024, dropout=0.0, norm="pre", positions="sinusoidal", dtype="bfloat16"
        ),
        dtype="bfloat16",
    ),
    task=MaskedTokens(share=0.3),
    data=DebianDescriptions("text"),
    steps=5500,
    text=Text(kind="bpe", size=8000, lowercase=True),
    batching=Batching(tokens=2048, buckets=5),
    optimizer=Optimizer(name="adamw", weight_decay=0.01, beta2=0.98),
    schedule=Schedule(name="linear", peak=1e-3, warmup=300),
    validation=Validation(every=1800, examples=400, beam=0),
)
