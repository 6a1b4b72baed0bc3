"""The HTML report of some runs: `report.html` with its data, one page that needs no network."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqlab.evaluation.analysis import Analysis, analyze, check_effort, faults
from seqlab.evaluation.compare import compare_systems
from seqlab.evaluation.confusion import confusion
from seqlab.evaluation.inspection import attention_maps, document_map
from seqlab.evaluation.plain_values import to_plain
from seqlab.evaluation.texts import Texts, gather_texts
from seqlab.evaluation.versions import versions
from seqlab.metrics.registry import find_metric, score_lines
from seqlab.runs.loading import Run
from seqlab.runs.log import read_log
from seqlab.tasks.classification import Classification

SENTENCES_PER_GROUP = 12
POINTS = 500  # per curve, approximately
CLASSES = 60  # a larger matrix is not readable


def report(runs: Sequence[Run], split: str, data_dir: Path, **effort: Any) -> str:
    """Returns the page about runs of one task, named by their folders. `effort` is passed to `analyze`."""
    check_effort(**effort)
    names = [str(run.folder) for run in runs]
    data: dict[str, Any] = {
        "title": " · ".join(run.folder.name for run in runs),
        "made": f"seqlab report, split {split}",
        "runs": [run_facts(run) for run in runs],
    }
    if runs[0].experiment.task.metrics:
        texts = gather_texts(names, (), data_dir, split, loaded=dict(zip(names, runs, strict=True)))
        comparison = compare_systems(texts)
        data["comparison"] = to_plain(comparison)
        data["sentences"] = sentences(runs, texts)
        data["facts"] = comparison.facts
        if runs[0].experiment.task.searches:
            analyses = [analyze(run, split, data_dir, **effort) for run in runs]
            data["analyses"] = [
                analysis_facts(name, analysis) for name, analysis in zip(names, analyses, strict=True)
            ]
        elif "label" in runs[0].experiment.task.columns:
            pairs = [
                (name, *confusion(system.seeds[0], texts.references[0]))
                for name, system in zip(names, texts.systems, strict=True)
            ]
            data["confusions"] = [
                {"run": name, "classes": classes, "counts": counts.tolist()}
                for name, classes, counts in pairs
                if len(classes) <= CLASSES
            ]
    else:
        data["facts"] = {"versions": versions()}
    return page(data)


def page(data: dict[str, Any]) -> str:
    """Returns the page with its data. The data contains no "<", so it cannot end the script element."""
    content = json.dumps(to_plain(data), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return (Path(__file__).parent / "report.html").read_text(encoding="utf-8").replace("__DATA__", content)


def run_facts(run: Run) -> dict[str, Any]:
    search = run.experiment.search
    curves: dict[str, list[Any]] = {}
    for line in read_log(run.folder):
        for name, value in line.items():
            if name != "step":
                curves.setdefault(name, []).append([line["step"], value])
    for name, points in curves.items():
        curves[name] = [*points[:: max(len(points) // POINTS, 1)], points[-1]]
    return {
        "name": str(run.folder),
        "model": type(run.experiment.model).__name__,
        "parameters": sum(x.size for x in jax.tree.leaves(run.params)),
        "step": run.step,
        "search": f"beam {search.beam}, {search.preset}" if run.experiment.task.searches else "",
        "curves": curves,
    }


def analysis_facts(name: str, analysis: Analysis) -> dict[str, Any]:
    """Returns the data of an analysis for the page: counts instead of lines."""
    settings = {
        "metric": analysis.metric,
        "unreachable": analysis.unreachable,
        "widths": analysis.widths,
        "exact": analysis.exact,
    }
    return {"run": name, "lines": len(analysis.lines), "faults": faults(analysis.lines), **settings}


def sentences(runs: Sequence[Run], texts: Texts) -> dict[str, list[Any]]:
    """Returns the best and worst lines of the first run, and the lines in which the second run differs most from it,
    by the first metric of a line, with the attention of the runs.
    """
    reference_lines = texts.references[0]
    written = [system.seeds[0] for system in texts.systems]
    (name, first), *_ = score_lines(texts.metrics[0], written[0], texts.references).items()
    values = [first, *(score_lines(texts.metrics[0], lines, texts.references)[name] for lines in written[1:])]
    good = -first if find_metric(texts.metrics[0]).lower_is_better else first
    long_first = -np.array([*map(len, reference_lines)])
    chosen = {
        "worst": np.lexsort((long_first, good))[:SENTENCES_PER_GROUP],
        "best": np.lexsort((long_first, -good))[:SENTENCES_PER_GROUP],
    }
    if len(values) > 1 and (values[1] != first).any():
        chosen["most changed"] = np.argsort(-abs(values[1] - first), kind="stable")[:SENTENCES_PER_GROUP]
    shown_indices = np.unique(np.concatenate([*chosen.values()]))
    attention = [
        attention_facts(
            run, [(texts.sources or reference_lines)[i] for i in shown_indices], [lines[i] for i in shown_indices]
        )
        for run, lines in zip(runs, written, strict=True)
    ]
    position_of = {int(i): n for n, i in enumerate(shown_indices)}

    def card(i: int) -> dict[str, Any]:
        return {
            "number": i + 1,
            "source": texts.sources[i] if texts.sources else None,
            "reference": reference_lines[i],
            "texts": [
                {
                    "run": str(run.folder),
                    "score": float(value[i]),
                    "parts": difference(lines[i], reference_lines[i]),
                    **maps[position_of[i]],
                }
                for run, value, lines, maps in zip(runs, values, written, attention, strict=True)
            ],
        }

    return {kind: [card(int(i)) for i in indices] for kind, indices in chosen.items()}


def attention_facts(run: Run, sources: Sequence[str], lines: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the attention of a run in the form that the page expects."""
    if run.experiment.task.searches:
        return [{"attention": attention} for attention in attention_maps(run, sources, lines)]
    task = run.experiment.task
    if isinstance(task, Classification):
        return [{"document": document_map(run, task, source)} for source in sources]
    return [{} for _ in sources]


def difference(text: str, reference: str) -> list[tuple[str, str]]:
    """Returns the words of a text, marked "same" or "ins", and words that only the reference has, marked "del"."""
    left, right = reference.split(" "), text.split(" ")
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(("same", " ".join(right[c:d]) + " "))
        else:
            parts += [("del", " ".join(left[a:b]) + " ")] * (b > a) + [("ins", " ".join(right[c:d]) + " ")] * (d > c)
    return parts
