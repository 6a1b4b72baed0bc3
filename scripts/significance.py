"""Tests whether a run is better than a baseline on a split, by the paired bootstrap of `seqlab compare`.

python scripts/significance.py runs/baseline runs/new --metric accuracy
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from seqlab.cli.options import DATA_DIR, Split
from seqlab.evaluation.compare import compare_systems
from seqlab.evaluation.texts import gather_texts
from seqlab.system.compilation import keep_compilations
from seqlab.system.errors import SeqlabError


def judge(baseline: Path, run: Path, metric: str, split: str) -> dict[str, Any]:
    """Returns the difference of the scores and its p-value, as scores."""
    comparison = compare_systems(gather_texts((str(baseline), str(run)), (), DATA_DIR, split, None, None, (metric,)))
    result = comparison.judged[metric]
    scores = []
    for name, (first, second) in result.scores.items():
        scores.append({"name": f"gain in {name}", "value": second.value - first.value, "signature": result.signature})
        scores.append({"name": "p", "value": second.bootstrap, "signature": "paired bootstrap"})
    return {"scores": scores, "data": comparison.facts}


def main(
    baseline: Annotated[Positional[Path], arg(metavar="RUN", help="Baseline.")],
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run to compare with the baseline.")],
    metric: Annotated[str, arg(help="Metric to compare.")] = "accuracy",
    split: Split = "test",
) -> None:
    """Print the difference of a score between two runs and its p-value, as JSON."""
    keep_compilations()
    print(json.dumps(judge(baseline, run, metric, split)))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except SeqlabError as error:
        sys.exit(f"significance: {error}")
