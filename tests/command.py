"""The `seqlab` command in the process of the tests, and runs to try it on."""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from seqlab import catalogue
from seqlab.cli import main
from seqlab.codecs.codec import Codecs
from seqlab.config import Experiment
from seqlab.data.codec_files import save_codecs
from seqlab.runs import saving
from seqlab.runs.parameters import init_model_parameters
from seqlab.system.signals import STOP_SIGNALS


def call(folder: Path, *arguments: str, stdin: str | None = None) -> int:
    """The command in this process; its exit code."""
    here, old, old_in = os.getcwd(), sys.argv, sys.stdin
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    os.chdir(folder)
    sys.argv = ["seqlab", *arguments]
    try:
        if stdin is not None:
            path = folder / "stdin"
            path.write_text(stdin, encoding="utf-8")
            sys.stdin = path.open(encoding="utf-8")
        main.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        os.chdir(here)
        for number, handler in handlers.items():  # `seqlab train` hears to the end of its process
            signal.signal(number, handler)
        if sys.stdin is not old_in:
            sys.stdin.close()
        sys.argv, sys.stdin = old, old_in
    return 0


def save_untrained(experiment: Experiment, codecs: Codecs, run: Path, seed: int = 0, deviation: float = 0.0) -> None:
    """A run of initial parameters, changed at random by so much."""
    experiment = catalogue.resolve(experiment, codecs)
    run.mkdir()
    save_codecs(codecs, run)
    catalogue.save_experiment(experiment, run / "experiment.json")
    saver = saving.Saver(run, 1)
    random = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda x: np.asarray(x) + deviation * random.normal(size=x.shape).astype(np.float32),
        init_model_parameters(experiment.model, seed),
    )
    saver.save({"params": params, "step": np.int32(1)}, 1, {})
    saver.close()
