"""Translation with your own parallel text files, shown on a few sample sentences to test the setup.

    seqlab train configs/parallel_text.py --out runs/samples
    seqlab train configs/parallel_text.py --out runs/mine --data.train-source my.en --data.train-target my.de ...

For real text, copy this file and raise the sizes: configs/multi30k_transformer.py has sizes for 29,000 pairs.
"""

from seqlab.config import Batching, Experiment, Schedule, Text, Validation
from seqlab.datasets.parallel_text import ParallelText
from seqlab.models.transformer import Transformer
from seqlab.tasks.translation import Translation

experiment = Experiment(
    model=Transformer(encoder_layers=1, decoder_layers=1, dim=64, heads=2, hidden=128, dropout=0.1),
    task=Translation(),
    data=ParallelText(
        train_source="data/samples/train.en",
        train_target="data/samples/train.de",
        validation_source="data/samples/validation.en",
        validation_target="data/samples/validation.de",
    ),
    steps=100,
    text=Text(kind="char", size=400),
    batching=Batching(tokens=1024, buckets=1),
    schedule=Schedule(peak=3e-3, warmup=20),
    validation=Validation(every=50),
)
