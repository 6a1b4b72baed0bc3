"""Sequence-level distillation (Kim & Rush 2016): a small student learns the translations of a teacher.

    seqlab prepare multi30k/en-de --folder DIR_WITH_MULTI30K
    seqlab train configs/multi30k_transformer.py --out runs/multi30k
    seqlab distill runs/multi30k --out distilled --beam 5
    seqlab train configs/multi30k_distilled.py --out runs/multi30k-distilled \
        --tokenizer runs/multi30k/codecs/source+target.sentencepiece

The student is that of configs/multi30k_student.py, with a quarter of the parameters of the teacher. Sources for which
the teacher writes an empty text are left out.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.local_files import LocalFiles
from seqlab.models.transformer import Transformer
from seqlab.tasks.translation import Translation

experiment = Experiment(
    model=Transformer(
        encoder_layers=2, decoder_layers=2, dim=128, heads=4, hidden=512, dropout=0.1, dtype="bfloat16"
    ),
    task=Translation(),
    data=LocalFiles(
        "distilled/train.jsonl",
        "distilled/validation.jsonl",
        "distilled/test_2016_flickr.jsonl",
        source="source",
        target="target",
        errors="replace",
    ),
    steps=5000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=2048, buckets=6, max_length=100),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=2e-3, warmup=600),
    validation=Validation(every=1000, examples=500, metric="bleu"),
)
