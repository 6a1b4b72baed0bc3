"""Translation of everyday phrases, English to German, in a few minutes on a laptop.

    seqlab train configs/quickstart.py --out runs/quickstart
    seqlab evaluate runs/quickstart

A small pre-norm Transformer (Vaswani et al. 2017) on phrases generated from the Unicode CLDR: dates, times, amounts,
prices, lists and their combinations, some of which occur only in the test split.
"""

from seqlab.config import Batching, Experiment, Schedule, Text, Validation
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.models.transformer import Transformer
from seqlab.tasks.translation import Translation

experiment = Experiment(
    model=Transformer(encoder_layers=2, decoder_layers=2, dim=160, heads=4, hidden=512, dropout=0.05),
    task=Translation(label_smoothing=0.05),
    data=CldrPhrases(pair="en-de"),
    steps=600,
    text=Text(kind="bpe", size=2000),
    batching=Batching(tokens=2048, buckets=3, max_length=64),
    schedule=Schedule(name="linear", peak=3e-3, warmup=100),
    validation=Validation(every=300, examples=500, beam=0),
)
