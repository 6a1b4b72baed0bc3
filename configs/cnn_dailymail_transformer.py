"""CNN/DailyMail: a Transformer that summarizes the first 400 tokens of a news article (See et al. 2017).

    seqlab prepare tfds/cnn_dailymail --source article --target highlights      (once, with the extra tfds-tf)
    seqlab train configs/cnn_dailymail_transformer.py --out runs/cnn
    seqlab evaluate runs/cnn

This config has not been tested at full scale.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Search, Text, Validation
from seqlab.datasets.tfds import Tfds
from seqlab.models.transformer import Transformer
from seqlab.tasks.summarization import Summarization

experiment = Experiment(
    model=Transformer(
        encoder_layers=6, decoder_layers=6, dim=512, heads=8, hidden=2048, dropout=0.1, dtype="bfloat16"
    ),
    task=Summarization(source_tokens=400, keep="head"),
    data=Tfds("cnn_dailymail", source="article", target="highlights"),
    steps=100_000,
    text=Text(kind="bpe", size=32_000),
    batching=Batching(tokens=32_000, buckets=8, max_length=512),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="inverse_sqrt", peak=7e-4, warmup=4000),
    search=Search(beam=4, alpha=1.0, max_length=120),
    validation=Validation(every=2000, examples=1000),
)
