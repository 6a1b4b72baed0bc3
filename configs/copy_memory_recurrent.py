"""The copying memory task (Hochreiter & Schmidhuber 1997) with a recurrent layer; see `copy_memory.py`.

    seqlab train configs/copy_memory_recurrent.py --out runs/copy-gru
    seqlab train configs/copy_memory_recurrent.py --model.encoder.cell lstm --model.encoder.dim 50
    seqlab evaluate runs/copy-gru

The GRU has 23,000 parameters, the LSTM 21,000.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Validation
from seqlab.datasets.copy_memory import CopyMemory
from seqlab.encoders.recurrent import RecurrentEncoder
from seqlab.models.tagger_head import TaggerHead
from seqlab.tasks.tagging import Tagging

DELAY = 500

experiment = Experiment(
    model=TaggerHead(RecurrentEncoder(cell="gru", layers=1, dim=60)),
    task=Tagging(),
    data=CopyMemory(DELAY),
    steps=3000,
    batching=Batching(tokens=32 * (DELAY + 20), buckets=1, max_length=DELAY + 20),
    optimizer=Optimizer(beta2=0.999, epsilon=1e-8),
    schedule=Schedule(name="constant", peak=2e-3, warmup=0),
    validation=Validation(every=500),
)
