"""The copying memory task (Hochreiter & Schmidhuber 1997): repeat ten symbols after a delay of 500.

    seqlab train configs/copy_memory.py --out runs/copy-tcn
    seqlab evaluate runs/copy-tcn

10,000 sequences, batches of 32, Adam with clipping at 1. The TCN has 13,000 parameters (Bai et al. 2018, table 1:
16,000). A model without memory has a loss of 10 ln 8 / 520 = 0.040. `copy_memory_recurrent.py` is recurrent.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Validation
from seqlab.datasets.copy_memory import CopyMemory
from seqlab.encoders.dilated import DilatedEncoder
from seqlab.models.tagger_head import TaggerHead
from seqlab.tasks.tagging import Tagging

DELAY = 500

experiment = Experiment(
    model=TaggerHead(DilatedEncoder(layers=8, dim=10, kernel=8)),
    task=Tagging(),
    data=CopyMemory(DELAY),
    steps=3000,
    batching=Batching(tokens=32 * (DELAY + 20), buckets=1, max_length=DELAY + 20),
    optimizer=Optimizer(beta2=0.999, epsilon=1e-8),
    schedule=Schedule(name="constant", peak=2e-3, warmup=0),
    validation=Validation(every=500),
)
