"""One Billion Words (Chelba et al. 2013): a decoder-only Transformer on packed sentences.

    seqlab train configs/lm1b_transformer.py --out runs/lm1b      (first builds the data; needs no TensorFlow)
    seqlab evaluate runs/lm1b

This config has not been tested at full scale. Perplexity is per token of the tokenizer that is trained here: compare
it only with models that use the same tokenizer.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.tfds import Tfds
from seqlab.models.transformer_lm import TransformerLM
from seqlab.tasks.language_modeling import LanguageModeling

experiment = Experiment(
    model=TransformerLM(layers=6, dim=512, heads=8, hidden=2048, dropout=0.0, dtype="bfloat16"),
    task=LanguageModeling(rows="packed"),
    data=Tfds("lm1b", target="text", validation="train[:1%]"),
    steps=100_000,
    text=Text(kind="bpe", size=32_000),
    batching=Batching(tokens=64 * 1024, max_length=1024),
    optimizer=Optimizer(name="adamw", beta2=0.95, weight_decay=0.1),
    schedule=Schedule(name="cosine", peak=2e-3, warmup=1000),
    validation=Validation(every=1000, examples=5000),
)
