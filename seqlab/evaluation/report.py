"""One page of HTML about some runs, which opens from disk and needs no network: `report.html` and the data in it."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqlab.evaluation.analysis import Analysis, analyze, check_effort, faults
from seqlab.evaluation.compare import compared
from seqlab.evaluation.confusion import confusion
from seqlab.evaluation.inspection import attention_maps, document_map
from seqlab.evaluation.texts import Texts, gather, versions
from seqlab.metrics.registry import LOWER_IS_BETTER, score_lines
from seqlab.runs.loading import Run
from seqlab.runs.log import read_log

EACH = 12  # sentences of a kind that are shown
POINTS = 500  # of a curve, about
CLASSES = 60  # more make no matrix that can be read


def report(runs: Sequence[Run], split: str, data_dir: Path, **effort: Any) -> str:
    """The page about runs of one task; their names are their folders'. The `effort` is that of `analyze`."""
    check_effort(**effort)
    names = [str(run.folder) for run in runs]
    data: dict[str, Any] = {
        "title": " · ".join(run.folder.name for run in runs),
        "made": f"seqlab report, split {split}",
        "runs": [run_facts(run) for run in runs],
    }
    if runs[0].experiment.task.metrics:
        texts = gather(names, (), data_dir, split, loaded=dict(zip(names, runs, strict=True)))
        comparison = compared(texts)
        data["comparison"] = plain(comparison)
        data["sentences"] = sentences(runs, texts)
        data["facts"] = comparison.facts
        if runs[0].experiment.task.KIND == "generator":
            found = [analyze(run, split, data_dir, **effort) for run in runs]
            data["analyses"] = [analysis_facts(name, one) for name, one in zip(names, found, strict=True)]
        elif "label" in runs[0].experiment.task.columns:
            pairs = [
                (name, *confusion(one.seeds[0], texts.references[0]))
                for name, one in zip(names, texts.systems, strict=True)
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
    """The page with its data, which can end no script, for it has no "<"."""
    content = json.dumps(plain(data), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return (Path(__file__).parent / "report.html").read_text(encoding="utf-8").replace("__DATA__", content)


def plain(value: Any) -> Any:
    """Named tuples as objects, and what is no number as nothing, for JSON."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


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
        "search": f"beam {search.beam}, {search.preset}" if run.experiment.task.KIND == "generator" else "",
        "curves": curves,
    }


def analysis_facts(name: str, found: Analysis) -> dict[str, Any]:
    """What the page shows of an analysis: counts in the place of lines."""
    known = {"metric": found.metric, "unreachable": found.unreachable, "widths": found.widths, "exact": found.exact}
    return {"run": name, "lines": len(found.lines), "faults": faults(found.lines), **known}


def sentences(runs: Sequence[Run], texts: Texts) -> dict[str, list[Any]]:
    """The lines that the first run writes best and worst, and those in which the second differs most from it, by the
    first metric of a line; with what the runs attend to.
    """
    wanted = texts.references[0]
    written = [system.seeds[0] for system in texts.systems]
    (name, first), *_ = score_lines(texts.metrics[0], written[0], texts.references).items()
    values = [first, *(score_lines(texts.metrics[0], lines, texts.references)[name] for lines in written[1:])]
    good = -first if name.endswith(LOWER_IS_BETTER) else first
    long_first = -np.array([*map(len, wanted)])
    chosen = {"worst": np.lexsort((long_first, good))[:EACH], "best": np.lexsort((long_first, -good))[:EACH]}
    if len(values) > 1 and (values[1] != first).any():
        chosen["most changed"] = np.argsort(-abs(values[1] - first), kind="stable")[:EACH]
    every = np.unique(np.concatenate([*chosen.values()]))
    looked = [
        looked_at(run, [(texts.sources or wanted)[i] for i in every], [lines[i] for i in every])
        for run, lines in zip(runs, written, strict=True)
    ]
    place = {int(i): n for n, i in enumerate(every)}

    def card(i: int) -> dict[str, Any]:
        return {
            "number": i + 1,
            "source": texts.sources[i] if texts.sources else None,
            "reference": wanted[i],
            "texts": [
                {
                    "run": str(run.folder),
                    "score": float(value[i]),
                    "parts": difference(lines[i], wanted[i]),
                    **maps[place[i]],
                }
                for run, value, lines, maps in zip(runs, values, written, looked, strict=True)
            ],
        }

    return {kind: [card(int(i)) for i in some] for kind, some in chosen.items()}


def looked_at(run: Run, sources: Sequence[str], lines: Sequence[str]) -> list[dict[str, Any]]:
    """What a run attends to, as the page asks for it."""
    if run.experiment.task.KIND == "generator":
        return [{"attention": one} for one in attention_maps(run, sources, lines)]
    if run.experiment.task.KIND == "classifier":
        return [{"document": document_map(run, source)} for source in sources]
    return [{} for _ in sources]


def difference(text: str, reference: str) -> list[tuple[str, str]]:
    """A text's words, "same" as the reference's or not there, "ins", and what is there alone, "del"."""
    left, right = reference.split(" "), text.split(" ")
    found = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(("same", " ".join(right[c:d]) + " "))
        else:
            found += [("del", " ".join(left[a:b]) + " ")] * (b > a) + [("ins", " ".join(right[c:d]) + " ")] * (d > c)
    return found
