"""Pre-training of the bidirectional language model of ELMo (Peters et al. 2018) on English package descriptions.

    seqlab train configs/bilm_small.py --out runs/bilm-small

It has two LSTM layers for each direction, and reads the 3.2 million words of `debian_descriptions/text`, in lower
case.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.encoders.bilm import BilmEncoder
from seqlab.models.bidirectional_lm import BidirectionalLM
from seqlab.tasks.bidirectional_modeling import BidirectionalModeling

experiment = Experiment(
    model=BidirectionalLM(BilmEncoder(dim=256, dropout=0.0, dtype="bfloat16")),
    task=BidirectionalModeling(max_tokens=64),
    data=DebianDescriptions("text"),
    steps=2500,
    text=Text(kind="bpe", size=8000, lowercase=True),
    batching=Batching(tokens=2048, buckets=3),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=2e-3, warmup=200),
    validation=Validation(every=1000, examples=400, beam=0),
)
