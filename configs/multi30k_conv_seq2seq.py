"""Translation of image captions: gated convolutions with attention (Gehring et al. 2017) on Multi30k.

    seqlab train configs/multi30k_conv_seq2seq.py --out runs/conv_seq2seq
    seqlab evaluate runs/conv_seq2seq --split test_2016_flickr

Data, vocabulary, batches, updates and schedule are the same as in configs/multi30k_transformer.py.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.multi30k import Multi30k
from seqlab.models.conv_seq2seq import ConvSeq2Seq
from seqlab.tasks.translation import Translation

experiment = Experiment(
    model=ConvSeq2Seq(encoder_layers=6, decoder_layers=6, dim=256, dropout=0.3, dtype="bfloat16"),
    task=Translation(label_smoothing=0.1),
    data=Multi30k(pair="en-de"),
    steps=5000,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=2048, buckets=6, max_length=100),
    optimizer=Optimizer(beta2=0.98),
    schedule=Schedule(name="linear", peak=1e-3, warmup=600),
    validation=Validation(every=1000, examples=500, metric="bleu"),
)
