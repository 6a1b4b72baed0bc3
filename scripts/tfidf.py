"""Evaluates a baseline for classification: a linear classifier of TF-IDF features (scikit-learn).

    pip install 'seqlab[reproduce]'
    python scripts/tfidf.py debian_descriptions/section

The features are the words and word pairs that occur in at least two documents. The classifier is a support vector
machine whose regularization is chosen on the validation split. Prints the accuracy on the test split as JSON.
"""

import json
import sys
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from seqlab import catalogue
from seqlab.cli.options import DATA_DIR
from seqlab.data.records import prepare
from seqlab.metrics.registry import score
from seqlab.system.errors import SeqlabError


def classify(dataset: Any) -> dict[str, Any]:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC
    except ImportError:
        raise SeqlabError("scikit-learn is not installed: pip install 'seqlab[reproduce]'") from None

    data = prepare(dataset, DATA_DIR)
    splits = {name: list(data.read(name)) for name in ("train", "validation", "test")}
    if "label" not in splits["test"][0]:
        raise SeqlabError(f"{dataset.key()} has no labels")
    labels = {name: [one["label"] for one in split] for name, split in splits.items()}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    features: dict[str, Any] = {"train": vectorizer.fit_transform(one["source"] for one in splits["train"])}
    for name in ("validation", "test"):
        features[name] = vectorizer.transform(one["source"] for one in splits[name])

    tried = {}
    for strength in (0.1, 0.3, 1.0, 3.0):
        model = LinearSVC(C=strength).fit(features["train"], labels["train"])
        tried[model.score(features["validation"], labels["validation"])] = model
    best = tried[max(tried)]
    found = score("accuracy", best.predict(features["test"]).tolist(), [labels["test"]])
    facts = {"C": best.C, "validation accuracy": 100 * max(tried)}
    return {
        "scores": [one._asdict() for one in found],
        **facts,
        "data": {"sha256": data.hashes["test"], **data.origin},
    }


def main(name: Annotated[Positional[str], arg(metavar="DATASET")]) -> None:
    """Print the test accuracy of a linear classifier of TF-IDF features on a dataset, as JSON."""
    print(json.dumps(classify(catalogue.dataset(name))))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except SeqlabError as error:
        sys.exit(f"tfidf: {error}")
