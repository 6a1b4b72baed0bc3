"""Intents of spoken commands (SNIPS): recurrent layers on a pre-trained language model, ELMo (Peters et al. 2018).

    seqlab train configs/bilm_small.py --out runs/bilm-small
    seqlab prepare snips/intents --folder DIR
    seqlab train configs/elmo_snips_intents.py --out runs/elmo-snips-intents \
        --initialize encoder/encoder ../bilm-small encoder --optimizer.trainable '^params/(?!encoder/encoder/)' \
        --tokenizer runs/bilm-small/codecs/source.sentencepiece

`DIR` contains the files of MiuLab/SlotGated-SLU, data/snips. The option `--optimizer.trainable` freezes the language
model, as in the paper. configs/elmo_snips.py predicts the slots.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.snips import Snips
from seqlab.encoders.bilm import BilmEncoder
from seqlab.encoders.elmo import ElmoEncoder
from seqlab.models.classifier_head import ClassifierHead
from seqlab.tasks.classification import Classification

experiment = Experiment(
    model=ClassifierHead(
        ElmoEncoder(
            BilmEncoder(dim=256, dropout=0.0, dtype="bfloat16"), words=256, dim=200, dropout=0.5, dtype="bfloat16"
        ),
    ),
    task=Classification(),
    data=Snips("intents"),
    steps=600,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=1024, buckets=4),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=2e-3, warmup=100),
    validation=Validation(every=150, metric="accuracy"),
)
