"""TODO cli.scoring."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from seqlab.cli.options import ALONE, DATA_DIR, NO_SEARCH, Cluster, DataDir, Parts, Run, SearchOptions, Which
from seqlab.cli.start import check_output, dump, start_computing, use_parts
from seqlab.system.errors import SeqlabError


def evaluate(
    run: Run,
    split: str = "test",
    search: Annotated[SearchOptions, arg(name="")] = NO_SEARCH,
    checkpoint: Which = "best",
    output: Annotated[Path | None, arg(metavar="F", help="Writes the decoded lines there too.")] = None,
    json: bool = False,
    cluster: Cluster = ALONE,
    data_dir: DataDir = DATA_DIR,
    parts: Parts = None,
) -> None:
    """Decodes a split and prints the task's scores with their signatures."""
    use_parts(parts)
    from seqlab.config import Search
    from seqlab.distributed.hosts import is_process_zero
    from seqlab.evaluation.evaluate import evaluate
    from seqlab.evaluation.texts import versions
    from seqlab.runs.checkpoint import fingerprint
    from seqlab.runs.loading import load
    from seqlab.system.files import open_output

    check_output(output)
    start_computing(cluster)
    loaded = load(run, checkpoint)
    kind = loaded.experiment.task.KIND
    if kind != "generator" and search != NO_SEARCH:
        raise SeqlabError(f"a {kind} does not search: leave out --beam and the like")
    result = evaluate(loaded, split, data_dir, **dataclasses.asdict(search))
    if output is not None and is_process_zero():
        with open_output(output) as stream:
            stream.writelines(line.replace("\n", " ") + "\n" for line in result.decoded.texts)
    for doubt in result.doubts:
        print(f"seqlab: {doubt}", file=sys.stderr)
    facts = {
        "run": str(run),
        "checkpoint": loaded.step,
        "parameters": {"sha256": fingerprint(run, loaded.step)},
        "split": split,
        "lines": len(result.decoded.texts),
        "search": dataclasses.asdict(result.search),
        "decoding_seconds": round(result.decoded.seconds, 2),
        "data": {"sha256": result.data.hashes[split], **result.data.origin},
        "changed": result.changed,
        "versions": versions(),
    }
    show_scores(result.scores, json, facts)
    if not json:
        print(f"checkpoint: step {loaded.step} sha256 {facts['parameters']['sha256']}")
        if kind == "generator":
            usual = dataclasses.asdict(Search())
            asked = {n: v for n, v in facts["search"].items() if n in ("beam", "preset") or v != usual[n]}
            print(f"search: {', '.join(f'{name} {value}' for name, value in asked.items())}")
        print(f"versions: {', '.join(f'{name} {version}' for name, version in facts['versions'].items())}")
        for name, value in facts["data"].items():
            print(f"data: {name} {value}")
        if result.changed:
            print(f"data: changed since the run was trained: {', '.join(result.changed)}")


def score(
    hypotheses: Annotated[Positional[Path], arg(metavar="H", help="A text file.")],
    references: Annotated[tuple[Path, ...], arg(metavar="R", help="One or more text files.")],
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME", help="See seqlab list metrics.")] = (
        "bleu",
        "chrf",
        "ter",
    ),
    by_line: Annotated[
        Path | None, arg(metavar="F", help="Writes the scores of each line alone there, apart by tabs.")
    ] = None,
    tokenized: Annotated[bool, arg(help="Text that looks tokenized is meant to.")] = False,
    json: bool = False,
) -> None:
    """Scores a text file against references, line by line."""
    check_output(by_line, hypotheses, *references)
    from seqlab.evaluation.doubts import doubts
    from seqlab.evaluation.texts import check_sizes, digest_of_lines, read_texts, versions
    from seqlab.metrics.registry import score, score_lines
    from seqlab.system.files import open_output

    files = {str(path): read_texts(path) for path in (hypotheses, *references)}
    check_sizes(files)
    lines, *wanted = (files[str(path)] for path in (hypotheses, *references))
    scores = [found for name in metrics for found in score(name, lines, wanted)]
    for doubt in doubts(metrics, lines, wanted, tokenized):
        print(f"seqlab: {doubt}", file=sys.stderr)
    facts = {"files": {name: digest_of_lines(some) for name, some in files.items()}, "versions": versions()}
    if by_line is not None:
        columns = [(name, *pair) for name in metrics for pair in score_lines(name, lines, wanted).items()]
        labels = [label for _, label, _ in columns]
        alone = {label if labels.count(label) == 1 else f"{label} ({name})": x for name, label, x in columns}
        with open_output(by_line) as stream:
            stream.write("\t".join(["line", *alone]) + "\n")
            for i, row in enumerate(zip(*alone.values(), strict=True), 1):
                stream.write("\t".join([str(i), *(f"{value:.4f}" for value in row)]) + "\n")
        facts["mean over lines"] = {label: float(x.mean()) for label, x in alone.items()}
    show_scores(scores, json, facts)


def show_scores(scores: list[Any], as_json: bool, facts: dict[str, Any]) -> None:
    if as_json:
        print(dump({**facts, "scores": [one._asdict() for one in scores]}))
        return
    width = max(12, *(len(one.name) for one in scores))
    for name, value, signature in scores:
        shown = f"{value:8.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:8.1e}"
        print(f"{name:{width}} {shown}  {signature}")
