"""A character-level language model of Tiny Shakespeare, with the CPU setting of nanoGPT.

    seqlab prepare tiny_shakespeare --folder DIR_WITH_INPUT_TXT
    seqlab train configs/shakespeare_lm.py --out runs/shakespeare
    printf 'ROMEO:' | seqlab decode runs/shakespeare --max-length 200

4 layers, 4 heads, width 128, batches of 12 rows of 64 characters, 2,000 updates, no dropout, AdamW with a cosine
schedule from 1e-3 to zero. Source: the README of https://github.com/karpathy/nanoGPT, which reports a validation loss
of 1.88 nats per character.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.tiny_shakespeare import TinyShakespeare
from seqlab.models.transformer_lm import TransformerLM
from seqlab.tasks.language_modeling import LanguageModeling

experiment = Experiment(
    model=TransformerLM(layers=4, dim=128, heads=4, hidden=512, dropout=0.0),
    task=LanguageModeling(rows="stream"),
    data=TinyShakespeare(),
    steps=2000,
    text=Text(kind="char", size=400),
    batching=Batching(tokens=12 * 64, max_length=64),
    optimizer=Optimizer(name="adamw", beta2=0.99, weight_decay=0.1),
    schedule=Schedule(name="cosine", peak=1e-3, warmup=100),
    validation=Validation(every=500, examples=10_000),
)
