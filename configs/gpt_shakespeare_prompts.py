"""Fine-tuning of a decoder-only language model on Tiny Shakespeare: soft prompts (Lester et al. 2021).

    seqlab train configs/gpt_small.py --out runs/gpt-small
    seqlab prepare tiny_shakespeare --folder DIR_WITH_INPUT_TXT
    seqlab train configs/gpt_shakespeare_prompts.py --out runs/gpt-shakespeare-prompts --init-from runs/gpt-small

Twenty learned vectors precede each row. Only these vectors are trained.
"""

from seqlab.config import Batching, Experiment, Optimizer, Schedule, Text, Validation
from seqlab.datasets.tiny_shakespeare import TinyShakespeare
from seqlab.models.transformer_lm import TransformerLM
from seqlab.tasks.language_modeling import LanguageModeling

experiment = Experiment(
    model=TransformerLM(layers=3, dim=256, heads=4, hidden=1024, dropout=0.0, prompts=20, dtype="bfloat16"),
    task=LanguageModeling(rows="stream", prompts=20),
    data=TinyShakespeare(),
    steps=600,
    text=Text(kind="bpe", size=8000),
    batching=Batching(tokens=2048, max_length=128),
    optimizer=Optimizer(name="adamw", weight_decay=0.0, beta2=0.98, trainable="/prompts$"),
    schedule=Schedule(name="linear", peak=3e-2, warmup=50),
    validation=Validation(every=200, examples=10_000, beam=0),
)
