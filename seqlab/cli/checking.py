"""`seqlab check`, `seqlab cost` and `seqlab diagnose`."""

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from seqlab.cli.options import DATA_DIR, Checkpoint, DataDir, Json, Parts
from seqlab.cli.parsing import run_parsed
from seqlab.cli.start import dump, first_argument, start_computing, use_parts
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError


def check(
    path: Annotated[Positional[Path], arg(metavar="CONFIG_OR_RUN", help="Config file, or folder of a run.")],
    checkpoint: Checkpoint = "best",
    json: Json = False,
    parts: Parts = None,
) -> None:
    """Check the laws of a model (tests of its properties) at full size, and print the results.

    For example, outputs must not depend on later tokens, on padding, or on other rows of the batch.

    Example: seqlab check configs/multi30k_transformer.py
    """
    use_parts(parts)
    from seqlab import catalogue
    from seqlab.laws import certificate

    start_computing()
    if path.is_dir():
        from seqlab.runs.loading import load

        loaded = load(path, checkpoint)
        model, params = loaded.experiment.model, loaded.params
    else:
        experiment = catalogue.load_config(path)
        catalogue.check_parts(experiment)
        model, params = catalogue.with_expected_sizes(experiment).model, None
    laws = []
    for name, holds, more in certificate.certificate(model, params):
        laws.append({"name": name, "holds": holds, "more": more})
        if not json:
            print(f"{name:24} {'yes' if holds else 'NO'}{f'  {more}' if more else ''}", flush=True)
    if json:
        print(dump(laws))
    if broken := [law["name"] for law in laws if not law["holds"]]:
        raise SeqlabError(f"{type(model).__name__} breaks these laws: {', '.join(broken)}; seqlab/laws defines them")


def cost(arguments: list[str]) -> None:
    """Count the operations of a training step of CONFIG, and measure its memory and time."""
    usage = "usage: seqlab cost CONFIG [options]; seqlab cost CONFIG --help lists CONFIG's options"
    name, rest = first_argument(arguments, "CONFIG", usage)
    from seqlab import catalogue

    config = catalogue.load_config(Path(name))

    def run(
        experiment: Annotated[Any, arg(name="")] = config,
        lengths: Annotated[
            tuple[int, ...], arg(metavar="N", help="Sequence lengths to measure, the same for source and target.")
        ] = (
            64,
            256,
        ),
        rows: Annotated[int, arg(help="Number of sequences.")] = 1,
        json: Json = False,
        parts: Parts = None,
    ) -> None:
        """Count the operations of a training step and a decoding step of CONFIG, and measure their memory and time.

        The options below are those of the named config, with its values as defaults.

        Example: seqlab cost configs/multi30k_transformer.py --lengths 32 64
        """
        from seqlab.evaluation.cost import costs, parameters, with_sizes
        from seqlab.training.checks import check_experiment

        start_computing()
        check_experiment(experiment)
        check_minimum("--rows", rows, 1)
        check_minimum("--lengths", min(lengths, default=0), 2)
        longest = experiment.model.longest or max(lengths)
        if max(lengths) > longest:
            raise SeqlabError(
                f"--lengths {max(lengths)} is more than the {longest} positions of the model: raise model.max_length"
            )
        experiment = with_sizes(experiment)
        size, table = parameters(experiment), []
        if not json:
            print(f"{size:,} parameters, {rows} x N positions\n")
            print(f"{'N':>6}  {'step':8} {'operations':>11} {'in a row':>9} {'time':>10} {'memory':>9}  moves")
        for length in lengths:
            cost = costs(experiment, length, rows)
            table.append({**cost._asdict(), "training": cost.training._asdict()})
            if cost.decoding is not None:
                table[-1]["decoding"] = cost.decoding._asdict()
            moves = ", ".join(f"{side} {'-' if count is None else count}" for side, count in cost.paths.items())
            for name, step, more in (("training", cost.training, moves), ("decoding", cost.decoding, "")):
                if step is not None and not json:
                    counts = f"{step.operations / 1e9:9.3f} G {step.sequential:9,}"
                    measurements = f"{step.seconds * 1e3:7.1f} ms {step.memory / 2**20:5.0f} MiB"
                    print(f"{length:6}  {name} {counts} {measurements}  {more}".rstrip(), flush=True)
        if json:
            print(dump({"parameters": size, "rows": rows, "costs": table}))

    run_parsed(run, "seqlab cost CONFIG", rest)


def diagnose(arguments: list[str]) -> None:
    """Plot how CONFIG learns: gradients, updates, activations and learning rates."""
    usage = "usage: seqlab diagnose CONFIG --out DIR [options]; seqlab diagnose CONFIG --help lists CONFIG's options"
    name, rest = first_argument(arguments, "CONFIG", usage)
    from seqlab import catalogue

    config = catalogue.load_config(Path(name))

    def run(
        out: Annotated[Path, arg(metavar="DIR", help="Output folder; it must not exist.")],
        experiment: Annotated[Any, arg(name="")] = config,
        first: Annotated[int, arg(metavar="N", help="Number of training steps to run.")] = 200,
        data_dir: DataDir = DATA_DIR,
        parts: Parts = None,
    ) -> None:
        """Run the first steps of CONFIG and a learning-rate range test, and write plots to DIR.

        The plots show how far gradients reach back, which units are dead, how large updates are, and whether the
        gradient is correct. The options below are those of the named config, with its values as defaults.

        Example: seqlab diagnose configs/quickstart.py --out diagnosis --first 50
        """
        from seqlab.evaluation.diagnosis import diagnose

        start_computing()
        diagnose.diagnose(experiment, out, data_dir, first)

    run_parsed(run, "seqlab diagnose CONFIG", rest)
