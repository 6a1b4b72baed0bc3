"""Translation of image captions, English to German: a small Transformer on the lower-cased, tokenized Multi30k files.

    python scripts/reproduce.py multi30k-tok --folder DIR_WITH_MULTI30K

The text-only setting of Wu et al. (2021), "Good for misconceived reasons", which reports 41.02 tokenized BLEU on
test_2016_flickr: 4+4 layers of width 128, a joint BPE vocabulary of 10,000, shared embeddings, 8,000 updates of about
8,192 tokens, the mean of the last ten checkpoints, beam 5. As in the paper, dropout applies only to embeddings and
residual branches. Normalization precedes each branch (pre-norm): with post-norm and the learning rate of 5e-3 the
encoder states collapsed to a single vector, and the decoder learned to ignore them.
"""

from seqlab.config import Batching, Checkpoints, Experiment, Optimizer, Schedule, Search, Text, Validation
from seqlab.datasets.multi30k import Multi30k
from seqlab.models.transformer import Transformer
from seqlab.tasks.translation import Translation

experiment = Experiment(
    model=Transformer(
        encoder_layers=4,
        decoder_layers=4,
        dim=128,
        heads=4,
        hidden=256,
        dropout=0.3,
        inner_dropout=0.0,
        dtype="bfloat16",
    ),
    task=Translation(label_smoothing=0.1, tokenized=True),
    data=Multi30k(pair="en-de", version="tok"),
    steps=8000,
    text=Text(kind="bpe", size=10_000),
    batching=Batching(tokens=8192, buckets=6, max_length=100),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="inverse_sqrt", peak=5e-3, warmup=2000),
    search=Search(beam=5, alpha=1.0),
    validation=Validation(every=100, beam=0),
    checkpoints=Checkpoints(last=10),
)
