"""Translation of Debian package descriptions, English to German, with a Transformer.

    seqlab train configs/debian_translation.py --out runs/debian
    seqlab evaluate runs/debian

31,000 synopses and paragraphs of `debian_descriptions/en-de`, translated by volunteers, with many names and technical
terms. The model is the same as in configs/multi30k_transformer.py.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.models.transformer import Transformer
from seqlab.tasks.translation import Translation

experiment = Experiment(
    model=Transformer(
        encoder_layers=3, decoder_layers=3, dim=256, heads=4, hidden=1024, dropout=0.2, dtype="bfloat16"
    ),
    task=Translation(label_smoothing=0.1),
    data=DebianDescriptions("en-de"),
    steps=5000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=4096, buckets=8, max_length=160),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=1e-3, warmup=600),
    validation=Validation(every=2000, metric="bleu"),
)
