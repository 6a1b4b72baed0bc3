"""Translation of image captions, English to German: a Transformer on the raw Multi30k files, sized for a CPU.

    seqlab prepare multi30k/en-de --folder DIR_WITH_MULTI30K
    seqlab train configs/multi30k_transformer.py --out runs/multi30k
    seqlab evaluate runs/multi30k --split test_2016_flickr

3+3 pre-norm layers of width 256 (Vaswani et al. 2017), a joint BPE vocabulary of 8,000, about 2,048 tokens per batch,
nine epochs, and a learning rate that decays linearly to zero. The operands of matrix products are bfloat16, which is
several times faster on CPUs with AMX; on other CPUs use --model.dtype float32.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.multi30k import Multi30k
from seqlab.models.transformer import Transformer
from seqlab.tasks.translation import Translation

experiment = Experiment(
    model=Transformer(
        encoder_layers=3, decoder_layers=3, dim=256, heads=4, hidden=1024, dropout=0.2, dtype="bfloat16"
    ),
    task=Translation(label_smoothing=0.1),
    data=Multi30k(pair="en-de"),
    steps=5000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=2048, buckets=6, max_length=100),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=1e-3, warmup=600),
    validation=Validation(every=1000, examples=500, metric="bleu"),
)
