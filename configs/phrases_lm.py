"""A language model of everyday German phrases, which continues a prompt.

    seqlab train configs/phrases_lm.py --out runs/phrases_lm
    echo "Montag, 3. Mai" | seqlab decode runs/phrases_lm

A decoder-only pre-norm Transformer (Radford et al. 2018) on the German side of `cldr_phrases/en-de`, with one phrase
per row.
"""

from seqlab.config import Batching, Experiment, Schedule, Text, Validation
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.models.transformer_lm import TransformerLM
from seqlab.tasks.language_modeling import LanguageModeling

experiment = Experiment(
    model=TransformerLM(layers=2, dim=128, heads=4, hidden=512, dropout=0.1),
    task=LanguageModeling(),
    data=CldrPhrases(pair="en-de"),
    steps=600,
    text=Text(kind="bpe", size=2000),
    batching=Batching(tokens=4096, buckets=3, max_length=64),
    schedule=Schedule(name="linear", peak=3e-3, warmup=100),
    validation=Validation(every=200),
)
