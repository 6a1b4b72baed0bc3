"""Fine-tuning of a small BERT encoder, under attention over words and sentences, on the sections of Debian packages.

    seqlab train configs/bert_small.py --out runs/bert-small
    seqlab train configs/bert_section_hierarchical.py --out runs/bert-section-hierarchical \
        --initialize encoder/encoder ../bert-small encoder --tokenizer runs/bert-small/codecs/source.sentencepiece

The encoder is that of Devlin et al. (2019), the attention that of Yang et al. (2016).
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.encoders.bert import BertEncoder
from seqlab.encoders.sentence_attention import SentenceAttentionEncoder
from seqlab.models.classifier_head import ClassifierHead
from seqlab.tasks.classification import Classification

experiment = Experiment(
    model=ClassifierHead(
        SentenceAttentionEncoder(
            BertEncoder(
                layers=3,
                dim=256,
                heads=4,
                hidden=1024,
                dropout=0.1,
                norm="pre",
                positions="sinusoidal",
                dtype="bfloat16",
            ),
            hidden=128,
            dtype="bfloat16",
        ),
        dropout=0.1,
    ),
    task=Classification(max_tokens=128, label_smoothing=0.1),
    data=DebianDescriptions("section"),
    steps=3000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=2048, buckets=5),
    optimizer=Optimizer(name="adamw", weight_decay=0.01, beta2=0.98),
    schedule=Schedule(name="linear", peak=5e-4, warmup=300),
    validation=Validation(every=1000, examples=2000, metric="accuracy"),
)
