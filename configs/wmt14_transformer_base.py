"""WMT14 English to German: the Transformer (base) of Vaswani et al. (2017), table 3.

    seqlab prepare tfds/wmt14_translate/de-en --source en --target de      (once, with the extra tfds-tf)
    seqlab train configs/wmt14_transformer_base.py --out runs/wmt14
    seqlab average runs/wmt14 --last 5
    seqlab evaluate runs/wmt14-average --alpha 0.6 --beam 4

100,000 updates of about 25,000 source and 25,000 target tokens. The paper's BLEU of 27.3 is computed on tokenized,
compound-split text (multi-bleu.perl); the sacreBLEU score of the same outputs is lower. This config has not been
tested at full scale.
"""

from seqlab.config import Batching, Checkpoints, Experiment, Optimizer, Schedule, Search, Text, Validation
from seqlab.datasets.tfds import Tfds
from seqlab.models.transformer import Transformer
from seqlab.tasks.translation import Translation

experiment = Experiment(
    model=Transformer(
        encoder_layers=6, decoder_layers=6, dim=512, heads=8, hidden=2048, dropout=0.1, norm="post", dtype="bfloat16"
    ),
    task=Translation(label_smoothing=0.1),
    data=Tfds("wmt14_translate/de-en", source="en", target="de"),
    steps=100_000,
    text=Text(kind="bpe", size=37_000),
    batching=Batching(tokens=50_000, buckets=12, max_length=256),
    optimizer=Optimizer(name="adam", beta1=0.9, beta2=0.98, epsilon=1e-9, clip=0.0),
    schedule=Schedule(name="noam", peak=1.0, warmup=4000, dim=512),
    search=Search(beam=4, alpha=0.6),
    validation=Validation(every=1500, examples=3000, metric="bleu"),
    checkpoints=Checkpoints(last=5),
)
