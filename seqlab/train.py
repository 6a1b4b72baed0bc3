"""Training: from an experiment to the loop, everything checked first and made once."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import optax

from seqlab import catalogue, checkpoint
from seqlab.batching import Plan
from seqlab.config import Experiment, Parallel
from seqlab.datasets import Prepared, prepare
from seqlab.errors import SeqlabError, advised, at_least
from seqlab.files import locked, made_once, write_atomically
from seqlab.hosts import by_the_first, check_alike, is_first, wait_for_all
from seqlab.loop import Work, run_steps
from seqlab.optim import make_optimizer, make_schedule
from seqlab.parallel import check_parallel, described, exactness, fill_rows, make_runner
from seqlab.sharding import explain
from seqlab.signals import wish_to_stop
from seqlab.step import TrainState, make_step, zeros_like
from seqlab.tasks import blank_batch, make_batch
from seqlab.text import (
    RECORD,
    TOKENIZER_FILES,
    Corpus,
    Labels,
    Numbers,
    Symbols,
    Tokenizer,
    Tokenizers,
    load_tokenizers,
    parse_names,
    parse_tokenizer,
    save_tokenizers,
    tokenizer_hashes,
    train_tokenizer,
)
from seqlab.types import Params
from seqlab.validate import check_longest, check_search, make_validation, tokenize_split


def tell(line: str) -> None:
    """To standard output, at once. A full disk there, or a reader that has gone, ends no training."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def train(
    experiment: Experiment,
    run: Path,
    data_dir: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
    say: Callable[[str], None] = tell,
    command: str | None = None,
) -> None:
    """Trains into the folder `run`; called again with the same arguments it goes on where it was. A new run keeps the
    `command` that began it.

    Raises `SeqlabError` for an experiment that cannot run, a run of another experiment, a loss that is not finite;
    `Stopped` where a signal asks for the end, which is first saved.
    """
    with wish_to_stop() as wish:
        check(experiment)
        refuse_other_folder(run)
        experiment, data, tokenizers, corpus = read_data(experiment, data_dir, run, init_from, tokenizer, say)
        plain = catalogue.to_json(free(experiment))
        check_alike("experiment", json.dumps({**plain, "data": None}).encode())
        check_alike("data", json.dumps(data.hashes).encode())
        check_alike("tokenizers", "".join(one.digest for one in tokenizers.values()).encode())
        held_out = tokenize_split(data, "validation", tokenizers, data_dir, experiment.validation.examples)
        plan = plan_batches(experiment, corpus, say)
        collate = functools.partial(make_batch, experiment.task, corpus, tokenizers)

        runner = make_runner(experiment.parallel, experiment.accumulate)
        first = fill_rows(collate(plan.batches(experiment.seed, 0)[0]), runner.parts)
        make = functools.partial(initial_state, experiment, first)
        shapes = jax.eval_shape(make)
        params = shapes.params
        say(f"{sum(x.size for x in jax.tree.leaves(params)):,} parameters, {described(experiment.parallel)}")
        say(exactness())
        begun = bool(checkpoint.checkpoint_steps(run))
        given = None if init_from is None or begun else load_params(init_from, params)

        def create() -> TrainState:
            state = runner.create(make)
            if given is None:
                return state
            average = None if state.average is None else runner.place(given)
            return dataclasses.replace(state, params=runner.place(given), average=average)

        wish.end_if_asked()  # where what a signal raised was kept from coming through
        work = Work(
            experiment,
            runner,
            shapes=shapes,
            create=create,
            step=runner.compile(training_step(experiment, runner.axis)),
            plan=plan,
            collate=collate,
            validate=make_validation(experiment, data, tokenizers, held_out),
            run=run,
            say=say,
            wish=wish,
        )
        with locked(run / ".lock", f"another process is training {run}") if is_first() else contextlib.nullcontext():
            by_the_first(lambda: open_run(experiment, tokenizers, data, run, command))
            run_steps(work)
            wait_for_all()


class Material(NamedTuple):
    """What training works on: the experiment, its sizes filled in; the data; the ids of its training split."""

    experiment: Experiment
    data: Prepared
    tokenizers: Tokenizers
    corpus: Corpus


def read_data(
    experiment: Experiment,
    data_dir: Path,
    run: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
    say: Callable[[str], None] = print,
) -> Material:
    """Prepares the data and its tokenizers, each once; those of `run` if it has them."""
    data = prepare(experiment.data, data_dir)
    check_columns(experiment, data)
    for what, count in data.origin.items():
        if what.startswith("lines mended"):
            say(f"{what}: {count}")
    tokenizers = make_tokenizers(experiment, data, data_dir, run, init_from, tokenizer)
    experiment = catalogue.resolve(experiment, tokenizers)
    corpus = tokenize_split(data, "train", tokenizers, data_dir, rates=getattr(experiment.data, "rates", ()))
    return Material(experiment, data, tokenizers, corpus)


def check(experiment: Experiment) -> None:
    """Refuses, before any work is done, what could only fail later."""
    e = experiment
    catalogue.check_parts(e)
    check_types(e)
    catalogue.check_numbers(e)
    optimizer_of(e).init({})
    make_schedule(e.schedule, e.steps)(0)
    check_parallel(e.parallel)
    if e.nonfinite not in ("stop", "skip", "rollback"):
        raise SeqlabError(f"nonfinite must be stop, skip or rollback, not {e.nonfinite!r}")
    check_search(e.search)
    known = ("loss", *e.task.metrics)
    metric = e.validation.metric
    if metric not in known:
        raise SeqlabError(f"validation.metric {metric!r} is none of this task's: {', '.join(known)}")
    if metric != "loss" and not e.validation.beam:
        raise SeqlabError(f"validation.metric {metric!r} needs translations: set validation.beam to 1 or more")
    for name, value, least in (
        ("accumulate", e.accumulate, 1),
        ("log_every", e.log_every, 1),
        ("hash_every", e.hash_every, 0),
        ("text.sample", e.text.sample, 1),
        ("batching.tokens", e.batching.tokens, 1),
        ("batching.buckets", e.batching.buckets, 1),
        ("batching.max_length", e.batching.max_length, 1),
        ("batching.max_ratio", e.batching.max_ratio, 1),
        ("optimizer.clip", e.optimizer.clip, 0),
        ("schedule.every", e.schedule.every, 1),
        ("schedule.warmup", e.schedule.warmup, 0),
        ("validation.every", e.validation.every, 1),
        ("validation.examples", e.validation.examples, 1),
        ("validation.beam", e.validation.beam, 0),
        ("checkpoints.last", e.checkpoints.last, 1),
    ):
        at_least(name, value, least)
    o = e.optimizer
    for name, value, holds, wanted in (
        ("schedule.peak", e.schedule.peak, 0 <= e.schedule.peak < math.inf, "a finite number of at least 0"),
        ("optimizer.beta1", o.beta1, 0 <= o.beta1 < 1, "in [0, 1)"),
        ("optimizer.beta2", o.beta2, 0 <= o.beta2 < 1, "in [0, 1)"),
        ("optimizer.epsilon", o.epsilon, 0 <= o.epsilon < math.inf, "a finite number of at least 0"),
        ("optimizer.weight_decay", o.weight_decay, 0 <= o.weight_decay < math.inf, "a finite number of at least 0"),
        ("optimizer.average", o.average, 0 <= o.average < 1, "in [0, 1)"),
        ("optimizer.clip", o.clip, math.isfinite(o.clip), "a finite number"),
    ):
        if not holds:
            raise SeqlabError(f"{name} is {wanted}, not {value}")
    smoothing = getattr(e.task, "label_smoothing", 0.0)
    if not 0 <= smoothing < 1:
        raise SeqlabError(f"task.label_smoothing lies in [0, 1), not {smoothing}")
    model = catalogue.sized(e.model, e.text.size)
    try:
        jax.eval_shape(lambda: init_params(model, e.seed, blank_batch(e.task)))
    except SeqlabError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise SeqlabError(f"this model cannot be built: {error}") from None


def check_types(value: Any, prefix: str = "") -> None:
    """Refuses a field of plain type, such as `steps: int`, that holds another, such as "3"."""
    hints = get_type_hints(type(value))
    for field in dataclasses.fields(value):
        found, wanted = getattr(value, field.name), hints.get(field.name)
        if dataclasses.is_dataclass(found) and field.name != "parent":
            check_types(found, f"{prefix}{field.name}.")
        elif wanted in (int, float, str, bool):
            fits = isinstance(found, (int, float) if wanted is float else wanted)
            if not fits or (isinstance(found, bool) and wanted is not bool):
                raise SeqlabError(f"{prefix}{field.name} is of type {wanted.__name__}, and {found!r} is not")


def check_columns(experiment: Experiment, data: Prepared) -> None:
    """Raises where the data lacks a column that the task asks for."""
    smallest = min(data.counts, key=lambda split: data.counts[split])  # all have the same, and it opens fastest
    first = next(data.read(smallest, 0, 1))
    for name in experiment.task.columns:
        if name not in first:
            task = type(experiment.task).__name__
            raise SeqlabError(f"{task} needs the column {name!r}, and the data has {', '.join(first)}")


def make_tokenizers(
    experiment: Experiment,
    data: Prepared,
    data_dir: Path,
    run: Path,
    init_from: Path | None = None,
    tokenizer: Path | None = None,
) -> Tokenizers:
    """Those of the run if it has them, of `init_from`, from the file `tokenizer`, or newly trained."""
    columns = experiment.task.columns
    texts = [name for name, kind in columns.items() if kind == "text"]
    given = None
    if tokenizer is not None:
        if not tokenizer.is_file():
            raise SeqlabError(f"no tokenizer {tokenizer}")
        given = dict.fromkeys(texts, parse_tokenizer(tokenizer.read_bytes(), str(tokenizer)))
    if (run / "experiment.json").exists():
        own = load_tokenizers(run, columns)
        if given is not None and given != {name: own[name] for name in texts}:
            raise SeqlabError(f"{run} has another tokenizer than {tokenizer}: choose another --out")
        return own
    if init_from is not None and given is None:
        catalogue.load_experiment(init_from / "experiment.json")
        return load_tokenizers(init_from, columns)

    def column(*wanted: str, stride: int = 1) -> Iterator[str]:
        return (example[name] for example in data.read("train", stride=stride) for name in wanted)

    def once(what: Any, make: Callable[[], bytes], parse: Callable[[bytes, str], Any]) -> Any:
        """The data and what is asked of it decide the result, so it is kept beside the ids."""
        identity = hashlib.sha256(repr((data.hashes["train"], what)).encode()).hexdigest()[:24]
        path = data_dir / "cache" / f"made-{identity}"
        content = made_once(path, make)
        with advised("remove it, and it is made again"):
            return parse(content, str(path))

    def tokenizer_of(*wanted: str) -> Tokenizer:
        text = experiment.text
        stride = -(-data.size("train") // text.sample)

        def make() -> bytes:
            return train_tokenizer(column(*wanted, stride=stride), text).model

        return once((text, wanted), make, parse_tokenizer)

    def names_in(name: str, split: Callable[[str], list[str]]) -> tuple[str, ...]:
        """All classes, or symbols, that occur."""

        def make() -> bytes:
            return json.dumps(sorted({part for text in column(name) for part in split(text)})).encode()

        return once((columns[name], name), make, parse_names)

    others: Tokenizers = {}
    for name, kind in columns.items():
        if kind == "class":
            others[name] = Labels(names_in(name, lambda text: [text]))
        elif kind == "symbols":
            others[name] = Symbols(names_in(name, str.split))
        elif kind == "numbers":
            others[name] = Numbers()
    if given is not None:
        return given | others
    if experiment.text.joint and texts:
        return dict.fromkeys(texts, tokenizer_of(*texts)) | others
    return {name: tokenizer_of(name) for name in texts} | others


def refuse_other_folder(run: Path) -> None:
    """Raises for a path that holds something else than a run, or the beginnings of one."""
    ours = (
        "data.json*",
        "command.txt*",
        "experiment.json.part",
        ".lock",
        *TOKENIZER_FILES,
    )
    if not run.exists() or (run / "experiment.json").exists():
        return
    if not run.is_dir() or any(not any(map(p.match, ours)) for p in run.iterdir()):
        raise SeqlabError(f"{run} exists and is no run: choose another --out")


def open_run(
    experiment: Experiment, tokenizers: Tokenizers, data: Prepared, run: Path, command: str | None = None
) -> None:
    """Makes the run's folder, or checks that the one there is of the same experiment and the same data."""
    path, hashes = run / "experiment.json", run / RECORD
    if path.exists():
        changed = catalogue.differences(free(catalogue.load_experiment(path)), free(experiment))
        if changed:
            kept = bool(checkpoint.checkpoint_steps(run))
            way = f"start from its parameters with --init-from {run}" if kept else "remove it: it has no checkpoint"
            raise SeqlabError(
                f"{run} is a run of another experiment:\n  "
                + "\n  ".join(changed)
                + f"\nchoose another --out, or {way}"
            )
        if hashes.exists() and data.changed_since(hashes):
            raise SeqlabError(f"the data of {run} has changed since it began: choose another --out")
        return
    run.mkdir(parents=True, exist_ok=True)
    save_tokenizers(tokenizers, run)
    write_atomically(hashes, json.dumps({**data.hashes, **tokenizer_hashes(run)}, indent=1))
    if command is not None:
        write_atomically(run / "command.txt", command + "\n")
    catalogue.save_experiment(experiment, path)


def free(experiment: Experiment) -> Experiment:
    """The experiment without what may change from one part of a run to the next: on what, and how it is watched."""
    return dataclasses.replace(experiment, parallel=Parallel(), nonfinite="stop", hash_every=0)


def plan_batches(experiment: Experiment, corpus: Corpus, say: Callable[[str], None]) -> Plan:
    plan = experiment.task.plan(corpus, experiment.batching)
    for line in plan.describe():
        say(line)
    check_longest(experiment.model, plan)
    if not plan.batches(experiment.seed, 0):
        raise SeqlabError("no training example is short enough: raise batching.max_length")
    check_kernel(experiment.model, plan)
    return plan


def check_kernel(model: Any, plan: Plan) -> None:
    """Raises where a part of the model's kernel would never see a position. Stacks of other layers have none."""
    kernel = getattr(model, "kernel", 1) if getattr(model, "layer", "tcn") == "tcn" else 1
    if kernel > plan.longest:
        raise SeqlabError(
            f"a kernel of {kernel} positions is wider than any batch: choose a model.kernel up to {plan.longest}"
        )


def training_step(experiment: Experiment, axis: str | None = None) -> Callable[..., Any]:
    """`make_step` of an experiment."""
    return make_step(
        functools.partial(experiment.task.loss, experiment.model),
        optimizer_of(experiment),
        experiment.seed,
        axis,
        accumulate=experiment.accumulate,
        average=experiment.optimizer.average,
        skip=experiment.nonfinite == "skip",
    )


def initial_state(experiment: Experiment, batch: Any) -> TrainState:
    """Step 0, for batches like this one. Raises `SeqlabError` for a model that cannot be built."""
    params = init_params(experiment.model, experiment.seed, batch)
    loss = functools.partial(experiment.task.loss, experiment.model)
    loss_sum, weight, sums, carry = jax.eval_shape(loss, params, batch, None, jax.random.key(0))
    sums = {"loss": loss_sum, "weight": weight, **sums, "gradient_norm": weight, "steps": weight}
    return TrainState(
        step=jnp.int32(0),
        params=params,
        optimizer=optimizer_of(experiment).init(params),
        carry=zeros_like(carry),
        sums={name: jnp.float32(0) for name in sums},
        average=jax.tree.map(jnp.copy, params) if experiment.optimizer.average else None,
    )


def optimizer_of(experiment: Experiment) -> optax.GradientTransformation:
    return make_optimizer(experiment.optimizer, experiment.schedule, experiment.steps)


def init_params(model: Any, seed: int, batch: Any) -> Params:
    """Parameters of a model from one batch; rows and lengths are cut, since they shape no parameter."""
    inputs, prefix = jax.tree.map(lambda x: x[:1, :2], (batch.inputs, batch.prefix))
    return make_initializer(model)(jax.random.key(seed), inputs, prefix)


@functools.lru_cache(maxsize=64)
def make_initializer(model: Any) -> Callable[..., Params]:
    """The jitted function from a key, inputs and a prefix to parameters; each model's is compiled once."""

    def run(module: Any, inputs: Any, prefix: Any) -> Any:
        if catalogue.kind_of(model) != "generator":
            return module(inputs, train=False)
        return module.project(module.features(inputs, prefix, train=False)[0])

    return jax.jit(functools.partial(model.init, method=run))


def explained(experiment: Experiment) -> Iterator[str]:
    """Where each part of the state lies on the axes of the mesh, and how much a device has of it."""
    check(experiment)
    model = catalogue.sized(experiment.model, experiment.text.size)
    experiment = dataclasses.replace(experiment, model=model)
    state = jax.eval_shape(lambda: initial_state(experiment, blank_batch(experiment.task)))
    parallel = experiment.parallel
    yield described(parallel)
    shared = (parallel.fsdp, parallel.tensor)
    yield from explain(state.params, *shared)
    *_, total = explain({"optimizer": state.optimizer, "average": state.average}, *shared)
    size, share = total.split()[-2:]
    yield f"beside them, the optimizer's state, which lies as they do: {size} MiB, {share} MiB a device"


def load_params(run: Path, like: Params) -> Params:
    """The best parameters of a run, for a model of the same shapes."""
    step = checkpoint.choose_step(run)
    params = checkpoint.parameters_of(checkpoint.restore(run, step))
    old, new = (
        {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}
        for tree in (params, like)
    )
    if old != new:
        name = next(n for n in {**old, **new} if old.get(n) != new.get(n))
        raise SeqlabError(f"{run} has another model: {name} is {old.get(name)} there and {new.get(name)} here")
    return params
