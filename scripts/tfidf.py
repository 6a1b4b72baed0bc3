"""A linear classifier of TF-IDF features (scikit-learn) on a data set with labels: what a model should be ahead of.

    pip install 'seqlab[reproduce]'
    python scripts/tfidf.py debian_descriptions/section

Words and pairs of words that two documents have; a support vector machine, the strength of its penalty chosen on the
validation split. Prints the accuracy on the test split as JSON.
"""

import json
import sys

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from seqlab import catalogue
from seqlab.cli import DATA_DIR
from seqlab.datasets import prepare
from seqlab.metrics import score


def main() -> None:
    data = prepare(catalogue.dataset(sys.argv[1]), DATA_DIR)
    splits = {name: list(data.read(name)) for name in ("train", "validation", "test")}
    labels = {name: [one["label"] for one in split] for name, split in splits.items()}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    features = {"train": vectorizer.fit_transform(one["source"] for one in splits["train"])}
    for name in ("validation", "test"):
        features[name] = vectorizer.transform(one["source"] for one in splits[name])

    tried = {}
    for strength in (0.1, 0.3, 1.0, 3.0):
        model = LinearSVC(C=strength).fit(features["train"], labels["train"])
        tried[model.score(features["validation"], labels["validation"])] = model
    best = tried[max(tried)]
    found = score("accuracy", best.predict(features["test"]).tolist(), [labels["test"]])
    data_facts = {"sha256": data.hashes["test"], **data.origin}
    print(json.dumps({"scores": [one._asdict() for one in found], "C": best.C, "data": data_facts}))


if __name__ == "__main__":
    main()
