"""Pre-training of a decoder-only language model (Radford et al. 2018) on English package descriptions.

    seqlab train configs/gpt_small.py --out runs/gpt-small

It has three layers of width 256, and reads the 3.2 million words of `debian_descriptions/text`.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.models.transformer_lm import TransformerLM
from seqlab.tasks.language_modeling import LanguageModeling

experiment = Experiment(
    model=TransformerLM(layers=3, dim=256, heads=4, hidden=1024, dropout=0.0, dtype="bfloat16"),
    task=LanguageModeling(rows="packed"),
    data=DebianDescriptions("text"),
    steps=2500,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=2048, max_length=128),
    optimizer=Optimizer(name="adamw", weight_decay=0.01, beta2=0.98),
    schedule=Schedule(name="linear", peak=1e-3, warmup=200),
    validation=Validation(every=1000, examples=400, beam=0),
)
