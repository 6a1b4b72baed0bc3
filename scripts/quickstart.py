"""Trains configs/quickstart.py, and prints translations and a BLEU score. `make quickstart` runs it."""

import sys
from pathlib import Path

from seqlab import catalogue
from seqlab.data.records import prepare
from seqlab.evaluation import evaluate
from seqlab.evaluation.nearest import nearest_targets
from seqlab.metrics.registry import score
from seqlab.runs import loading
from seqlab.system.compilation import keep_compilations
from seqlab.system.errors import SeqlabError
from seqlab.system.memory import keep_freed_memory
from seqlab.training.train import train

ROOT = Path(__file__).parents[1]
RUN, DATA = ROOT / "runs" / "quickstart", ROOT / "data"


def main() -> None:
    keep_freed_memory()
    keep_compilations()
    experiment = catalogue.load_config(ROOT / "configs" / "quickstart.py")
    train(experiment, RUN, DATA)
    run = loading.load(RUN)
    scores, decoded, *_ = evaluate.evaluate(run, "test", DATA)

    data = prepare(experiment.data, DATA)
    seen = {example["source"] for example in data.read("train")}
    baseline = nearest_targets(decoded.sources, data.read("train"))
    bleu = next(s for s in scores if s.name == "BLEU")
    baseline_bleu = score("bleu", baseline, [decoded.references])[0]
    print("\nfive phrases that are not in the training data:")
    unseen = [pair for pair in zip(decoded.sources, decoded.texts, strict=True) if pair[0] not in seen]
    for source, text in unseen[:5]:
        print(f"  {source}\n    {text}")
    for one in scores:
        print(f"{one.name:28} {one.value:8.2f}  {one.signature}")
    print(f"test BLEU {bleu.value:.1f} (nearest training phrase: {baseline_bleu.value:.1f})")


if __name__ == "__main__":
    try:
        main()
    except SeqlabError as error:
        sys.exit(f"{error}\n(`make quickstart` trains into {RUN}: delete that folder to start again)")
