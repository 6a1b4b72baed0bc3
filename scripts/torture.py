"""Kills training at random instants with SIGKILL, restarts it, and compares its end with an uninterrupted run.

    python scripts/torture.py [KILLS] [--seed N] [--only MODEL ...] [--folder DIR] [--json FILE]

Every model of the catalogue trains a tiny experiment twice, once without and once with interruptions. The kills are
distributed over the models and over five phases: data preparation, tokenizer training (and tokenizing), a step, a
save, and an evaluation. Each model uses one of four topologies (one device; eight devices with fsdp 2 and tensor 2;
pmap over eight devices; two processes with four devices each), and four consecutive seeds pair each model with each
topology. XLA runs at its lowest optimization level. A single process caches its compiled programs: the uninterrupted
run compiles them, and the other runs read them.

A killed run survives if all of this is equal to the uninterrupted run: the fingerprints and the progress of the
checkpoints; the bytes of the metrics log, the hash trail (a line per step), the codecs and the cached arrays; the
prepared examples; and the names of all files except those of TensorBoard. Otherwise it is LOST: its folder is kept,
and the exit code is 1.
"""

import argparse
import functools
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from torture_campaign import TOPOLOGIES, Campaign, CampaignResult
from torture_experiments import write_documents
from torture_victim import BUGS, PHASES

from seqlab import catalogue


def deal(kills: int, names: Sequence[str], rng: random.Random) -> dict[str, list[str]]:
    """Returns the phases in which the runs of each model are killed, distributed evenly.

    The two preparation phases come first, since they occur only once in a run.
    """
    targets: dict[str, list[str]] = {name: [] for name in names}
    for i in range(kills):
        targets[names[i % len(names)]].append(PHASES[i % len(PHASES)])
    for name, phases in targets.items():
        early = sorted((phase for phase in phases if phase in PHASES[:2]), key=PHASES.index)
        late = [phase for phase in phases if phase not in PHASES[:2]]
        targets[name] = early + rng.sample(late, len(late))
    return targets


def table(results: dict[str, CampaignResult]) -> Iterator[str]:
    """Yields Markdown tables of the kills by phase and by model. A kill counts for each phase that it hit."""
    survived = [kill for result in results.values() for kill in result.survived]
    lost = [kill for result in results.values() for kill in result.lost]
    yield "| phase | kills aimed at it | kills that hit it | survived | lost |"
    yield "|---|---|---|---|---|"
    for phase in PHASES:
        survived_count, lost_count = (sum(phase in kill.hit for kill in kills) for kills in (survived, lost))
        aimed = sum(kill.target == phase for kill in survived + lost)
        yield f"| {phase} | {aimed} | {survived_count + lost_count} | {survived_count} | {lost_count} |"
    yield f"| all | {len(survived + lost)} | {len(survived + lost)} | {len(survived)} | {len(lost)} |"
    yield ""
    yield "| model, topology | kills | survived | lost |"
    yield "|---|---|---|---|"
    for name, result in results.items():
        kills = len(result.survived) + len(result.lost)
        yield f"| {name} | {kills} | {len(result.survived)} | {len(result.lost)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the campaigns. Returns the exit code: 1 if a run was lost or a phase was not hit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="MODEL", choices=catalogue.names("models"))
    parser.add_argument(
        "--folder", type=Path, help="folder of the runs; by default a new one, deleted if nothing is lost"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--bug", choices=list(BUGS), default="", metavar="|".join(BUGS), help="plant a bug, which must be found"
    )
    options = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    write_documents(folder / "documents")
    rng = random.Random(options.seed)
    names = options.only or catalogue.names("models")
    say = functools.partial(print, flush=True)
    results: dict[str, CampaignResult] = {}
    start = time.monotonic()
    for i, (name, targets) in enumerate(deal(options.kills, names, rng).items()):
        way = list(TOPOLOGIES)[(i + options.seed) % len(TOPOLOGIES)]
        results[f"{name}, {way}"] = Campaign(name, way, folder, rng, options.bug, say).run(targets)
    print("\n".join(table(results)))
    print(f"\nseed {options.seed}, {(time.monotonic() - start) / 60:.1f} minutes")
    if options.json:
        options.json.write_text(json.dumps({name: result._asdict() for name, result in results.items()}, indent=1))
    reasons = [reason for result in results.values() for reason in result.reasons]
    print("\n".join(f"LOST {reason}" for reason in reasons))
    if not reasons and options.folder is None:
        shutil.rmtree(folder)
    return 1 if reasons or any(result.missed for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
