"""Classification of Debian packages by archive section, from their descriptions: the mean of word embeddings.

    seqlab train configs/debian_section.py --out runs/section
    seqlab evaluate runs/section

58,000 documents of `debian_descriptions/section` with 58 classes, and the deep averaging network of Iyyer et al.
(2015).
"""

from seqlab.config import Batching, Experiment, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.encoders.mean import MeanEncoder
from seqlab.models.classifier_head import ClassifierHead
from seqlab.tasks.classification import Classification

experiment = Experiment(
    model=ClassifierHead(MeanEncoder(dim=256, hidden=256, dropout=0.3), dropout=0.3),
    task=Classification(max_tokens=256),
    data=DebianDescriptions("section"),
    steps=3000,
    text=Text(kind="bpe", size=30_000),
    batching=Batching(tokens=8192, buckets=4),
    schedule=Schedule(name="linear", peak=2e-3, warmup=100),
    validation=Validation(every=500, examples=2000, metric="accuracy"),
)
