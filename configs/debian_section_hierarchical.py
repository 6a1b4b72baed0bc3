"""Classification of Debian packages by archive section, with attention over words and sentences.

    seqlab train configs/debian_section_hierarchical.py --out runs/section-hierarchical
    seqlab evaluate runs/section-hierarchical

Hierarchical attention (Yang et al. 2016) on the data of configs/debian_section.py.
"""

from seqlab.config import Batching, Experiment, Schedule, Text, Validation
from seqlab.datasets.debian_descriptions import DebianDescriptions
from seqlab.encoders.hierarchical import HierarchicalEncoder
from seqlab.models.classifier_head import ClassifierHead
from seqlab.tasks.classification import Classification

experiment = Experiment(
    model=ClassifierHead(
        HierarchicalEncoder(dim=200, hidden=100, dropout=0.5, dtype="bfloat16"), dropout=0.5, dtype="bfloat16"
    ),
    task=Classification(max_tokens=256, label_smoothing=0.1),
    data=DebianDescriptions("section"),
    steps=4000,
    text=Text(kind="bpe", size=30_000),
    batching=Batching(tokens=8192, buckets=5),
    schedule=Schedule(name="linear", peak=2e-3, warmup=100),
    validation=Validation(every=1000, examples=2000, metric="accuracy"),
)
