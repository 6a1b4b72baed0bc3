"""`seqlab evaluate`, `score`, `compare` and `analyze`."""

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from seqlab.cli.options import (
    DEFAULT_ANALYSIS,
    DEFAULT_EVALUATION_PLACES,
    DEFAULT_PLACES,
    NO_SEARCH,
    SINGLE_PROCESS,
    AnalysisOptions,
    Checkpoint,
    EvaluationPlaces,
    Json,
    Parts,
    PlaceOptions,
    ProcessOptions,
    RunFolder,
    SearchOptions,
    Split,
)
from seqlab.cli.start import check_output, dump, dump_line, load_generator, start_computing, use_parts
from seqlab.system.errors import SeqlabError


def evaluate(
    run: RunFolder,
    split: Split = "test",
    search: SearchOptions = NO_SEARCH,
    checkpoint: Checkpoint = "best",
    output: Annotated[Path | None, arg(metavar="F", help="Also write the decoded lines to a file.")] = None,
    json: Json = False,
    cluster: ProcessOptions = SINGLE_PROCESS,
    places: Annotated[EvaluationPlaces, arg(name="")] = DEFAULT_EVALUATION_PLACES,
) -> None:
    """Evaluate a run on a split: print scores with their signatures.

    Search options that are not given keep the run's values.

    Example: seqlab evaluate runs/quickstart --split test --beam 5
    """
    use_parts(places.parts)
    from seqlab.distributed.hosts import is_process_zero
    from seqlab.evaluation.evaluate import evaluate
    from seqlab.evaluation.versions import versions
    from seqlab.runs.checkpoint import fingerprint
    from seqlab.runs.loading import load
    from seqlab.system.files import open_output
    from seqlab.types import kind_of

    check_output(output)
    start_computing(cluster)
    loaded = load(run, checkpoint)
    task = loaded.experiment.task
    if not task.searches and search != NO_SEARCH:
        raise SeqlabError(f"a {kind_of(task.model)} does not search: leave out the search options")
    loaded = loaded._replace(experiment=with_data_fields(loaded.experiment, places.data))
    result = evaluate(loaded, split, places.data_dir, places.base, **dataclasses.asdict(search))
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
        print("\n".join(describe_evaluation(facts, task.searches)))
    if output is not None and is_process_zero():  # last, so that a full disk does not prevent the scores
        with open_output(output) as stream:
            stream.writelines(line.replace("\n", " ") + "\n" for line in result.decoded.texts)


def with_data_fields(experiment: Any, assignments: Iterable[str]) -> Any:
    """Returns the experiment with other values of fields of the dataset, given as "FIELD=VALUE"."""
    from seqlab import catalogue

    values = catalogue.part_to_json(experiment.data)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        kinds = {name: type(value) for name, value in values.items() if name != "part"}
        fields = [name for name, kind in kinds.items() if kind in (str, int, float)]
        if not equals:
            raise SeqlabError(f"--data {assignment}: expected FIELD=VALUE, such as test=FILE")
        if name not in fields:
            raise SeqlabError(
                f"--data {assignment}: the dataset has no field {name!r}; its fields are {', '.join(fields)}"
            )
        try:
            values[name] = kinds[name](value)
        except ValueError:
            raise SeqlabError(f"--data {assignment}: {name} must be a number") from None
    return dataclasses.replace(experiment, data=catalogue.part_from_json("datasets", values, "data"))


def describe_evaluation(facts: dict[str, Any], searches: bool) -> Iterable[str]:
    """Yields the facts that scores depend on, one per line."""
    from seqlab.config import Search

    yield f"checkpoint: step {facts['checkpoint']} sha256 {facts['parameters']['sha256']}"
    if searches:
        defaults = dataclasses.asdict(Search())
        fields = {n: v for n, v in facts["search"].items() if n in ("beam", "preset") or v != defaults[n]}
        yield f"search: {', '.join(f'{name} {value}' for name, value in fields.items())}"
    yield f"versions: {', '.join(f'{name} {version}' for name, version in facts['versions'].items())}"
    for name, value in facts["data"].items():
        yield f"data: {name} {value}"
    if facts["changed"]:
        yield f"data: changed since the run was trained: {', '.join(facts['changed'])}"


def score(
    hypotheses: Annotated[Positional[Path], arg(metavar="H", help="File of hypotheses, one per line.")],
    references: Annotated[
        tuple[Path, ...], arg(metavar="R", help="Reference files, one or more, with one reference per line.")
    ],
    metrics: Annotated[
        tuple[str, ...], arg(metavar="NAME", help="Names of metrics; seqlab list metrics lists them.")
    ] = (
        "bleu",
        "chrf",
        "ter",
    ),
    by_line: Annotated[
        Path | None, arg(metavar="F", help="Also write the scores of each line to a .tsv file.")
    ] = None,
    tokenized: Annotated[bool, arg(help="Suppress the warning about text that looks tokenized.")] = False,
    json: Json = False,
    parts: Parts = None,
) -> None:
    """Score a text file against references.

    Example: seqlab score output.txt --references reference.txt --metrics bleu chrf
    """
    use_parts(parts)
    check_output(by_line, hypotheses, *references)
    from seqlab.evaluation.doubts import doubts
    from seqlab.evaluation.texts import check_sizes, digest_of_lines, read_texts
    from seqlab.evaluation.versions import versions
    from seqlab.metrics.registry import score, score_lines
    from seqlab.system.files import open_output

    files = {str(path): read_texts(path) for path in (hypotheses, *references)}
    check_sizes(files)
    lines, *expected = (files[str(path)] for path in (hypotheses, *references))
    scores = [result for name in metrics for result in score(name, lines, expected)]
    for doubt in doubts(metrics, lines, expected, tokenized):
        print(f"seqlab: {doubt}", file=sys.stderr)
    facts = {"files": {name: digest_of_lines(texts) for name, texts in files.items()}, "versions": versions()}
    if by_line is not None:
        columns = [(name, *pair) for name in metrics for pair in score_lines(name, lines, expected).items()]
        labels = [label for _, label, _ in columns]
        by_label = {label if labels.count(label) == 1 else f"{label} ({name})": x for name, label, x in columns}
        with open_output(by_line) as stream:
            stream.write("\t".join(["line", *by_label]) + "\n")
            for i, row in enumerate(zip(*by_label.values(), strict=True), 1):
                stream.write("\t".join([str(i), *(f"{value:.4f}" for value in row)]) + "\n")
        facts["mean over lines"] = {label: float(x.mean()) for label, x in by_label.items()}
    show_scores(scores, json, facts)


def show_scores(scores: list[Any], as_json: bool, facts: dict[str, Any]) -> None:
    if as_json:
        print(dump({**facts, "scores": [score._asdict() for score in scores]}))
        return
    width = max(12, *(len(score.name) for score in scores))
    for name, value, signature in scores:
        figure = f"{value:8.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:8.1e}"
        print(f"{name:{width}} {figure}  {signature}")


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """Additional inputs for text files. Runs store them."""

    source: Annotated[
        Path | None,
        arg(metavar="F", help="Source file, for scores by length and by copied words; only to compare files."),
    ] = None
    train: Annotated[
        Path | None,
        arg(metavar="F", help="Target side of the training data, for scores by frequency; only to compare files."),
    ] = None


NO_FACTS = FileFacts()


def compare(
    systems: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="RUN_OR_FILE",
            help="Runs or text files; the first is the baseline. "
            "To group runs of one system that differ only in the seed, join them with commas.",
            help_behavior_hint="(required)",
        ),
    ],
    references: Annotated[
        tuple[Path, ...],
        arg(metavar="R", help="Reference files; only to compare files. Runs use the references of their split."),
    ] = (),
    split: Annotated[str, arg(help="Split that the runs decode, each with its own search settings.")] = "test",
    files: Annotated[FileFacts, arg(name="")] = NO_FACTS,
    metrics: Annotated[
        tuple[str, ...],
        arg(
            metavar="NAME",
            help="Names of metrics.",
            help_behavior_hint="(default: those of the runs' task; for files, bleu, chrf and ter)",
        ),
    ] = (),
    tokenized: Annotated[bool, arg(help="Suppress the warning about text that looks tokenized.")] = False,
    json: Json = False,
    places: PlaceOptions = DEFAULT_PLACES,
) -> None:
    """Compare systems: scores, confidence intervals, significance tests, and where they differ.

    Example: seqlab compare runs/baseline runs/new --split test
    """
    use_parts(places.parts)
    from seqlab.evaluation.compare import compare_systems, format_comparison
    from seqlab.evaluation.plain_values import to_plain
    from seqlab.evaluation.texts import gather_texts

    if not systems:
        raise SeqlabError("no systems given: name the runs or files to compare")
    start_computing()
    texts = gather_texts(systems, references, places.data_dir, split, files.source, files.train, metrics)
    comparison = compare_systems(texts, tokenized)
    for doubt in comparison.doubts:
        print(f"seqlab: {doubt}", file=sys.stderr)
    print(dump(to_plain(comparison)) if json else format_comparison(comparison))


def analyze(
    run: RunFolder,
    split: Split = "test",
    effort: AnalysisOptions = DEFAULT_ANALYSIS,
    search: SearchOptions = NO_SEARCH,
    checkpoint: Checkpoint = "best",
    output: Annotated[
        Path | None, arg(metavar="F", help="Also write every line with its search and model errors, as JSON lines.")
    ] = None,
    json: Json = False,
    places: PlaceOptions = DEFAULT_PLACES,
) -> None:
    """Separate search errors from model errors, with wider beams and exact search.

    Search options that are not given keep the run's values.

    Example: seqlab analyze runs/quickstart --split validation --lines 100
    """
    use_parts(places.parts)
    from seqlab.evaluation.analysis import analyze, format_analysis
    from seqlab.evaluation.plain_values import to_plain
    from seqlab.system.files import open_output

    check_output(output)
    start_computing()
    loaded = load_generator(run, checkpoint).with_search(**dataclasses.asdict(search))
    analysis = analyze(loaded, split, places.data_dir, **dataclasses.asdict(effort))
    print(dump({**to_plain(analysis), "lines": len(analysis.lines)}) if json else format_analysis(analysis))
    if output is not None:
        with open_output(output) as stream:
            stream.writelines(dump_line(to_plain(line)) + "\n" for line in analysis.lines)
