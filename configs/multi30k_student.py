"""Distillation of the translation model of configs/multi30k_transformer.py into one with a quarter of its parameters.

    seqlab prepare multi30k/en-de --folder DIR_WITH_MULTI30K
    seqlab train configs/multi30k_transformer.py --out runs/multi30k
    seqlab train configs/multi30k_student.py --out runs/multi30k-student --references teacher ../multi30k \
        --tokenizer runs/multi30k/codecs/source+target.sentencepiece

The student learns the distribution of the teacher at each token (Hinton et al. 2015).
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.multi30k import Multi30k
from seqlab.models.transformer import Transformer
from seqlab.tasks.distillation import Distillation

experiment = Experiment(
    model=Transformer(
        encoder_layers=2, decoder_layers=2, dim=128, heads=4, hidden=512, dropout=0.1, dtype="bfloat16"
    ),
    task=Distillation(),
    data=Multi30k(pair="en-de"),
    steps=5000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=2048, buckets=6, max_length=100),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=2e-3, warmup=600),
    validation=Validation(every=1000, examples=500, metric="bleu"),
)
