"""Pre-training of an encoder-decoder by span corruption, T5 (Raffel et al. 2020), on English package descriptions.

    seqlab train configs/t5_small.py --out runs/t5-small

The model has the same sizes as in configs/debian_synopsis.py. To fine-tune it on synopses:

    seqlab train configs/debian_synopsis.py --out runs/t5-synopsis --initialize "" ../t5-small "" \
        --tokenizer runs/t5-small/codecs/source+target.sentencepiece
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.models.transformer import Transformer
from seqlab.tasks.span_corruption import SpanCorruption

experiment = Experiment(
    model=Transformer(
        encoder_layers=3, decoder_layers=3, dim=256, heads=4, hidden=1024, dropout=0.0, dtype="bfloat16"
    ),
    task=SpanCorruption(share=0.3, max_tokens=96),
    data=DebianDescriptions("text"),
    steps=3000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=3072, buckets=4),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=1e-3, warmup=300),
    validation=Validation(every=1500, examples=400, beam=0),
)
