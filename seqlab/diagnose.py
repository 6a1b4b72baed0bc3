"""How a model learns, seen from real steps: how far gradients reach back, which units are dead, how large updates
are, whether the gradient is right, and which learning rates there are to choose from.

A model knows nothing of it: what enters it and what its layers give is looked at from outside, where methods are
called.
"""

import dataclasses
import functools
import itertools
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.core.tracers import current_trace
from jaxtyping import Array, Bool, Float, Int

from seqlab.config import Experiment, Optimizer
from seqlab.errors import at_least
from seqlab.files import check_new, folder_made_whole
from seqlab.layers.embed import Table, Vocabulary
from seqlab.layers.recurrent import Recurrent
from seqlab.loop import stream_of
from seqlab.optim import make_schedule, optimizer_at
from seqlab.parallel import fill_rows, make_runner
from seqlab.progress import progress
from seqlab.step import Loss, TrainState, make_step, zeros_like
from seqlab.tasks import make_batch
from seqlab.train import check, initial_state, optimizer_of, plan_batches, read_data
from seqlab.types import Batch, Params, Series, Tokens

VANISHED = 1e-3  # of a gradient is left at the far end: beside that of the near one it moves no parameter
DEAD = 0.1  # of a layer's units: a tenth of its width is there for nothing
SATURATED = 0.5  # of a gate's values: it is a switch more often than a gate
BOUNDS = {"gate": (0.1, 0.9), "tanh": (-0.99, 0.99)}  # saturated beyond; of gates: Karpathy et al. 2015, section 4.2
RATIO = 1e-3  # of update to parameter, about: CS231n's notes, "Neural Networks Part 3", ratio of weights:updates
AROUND = 10.0  # a ratio that is further from it than by this factor is told
WRONG = 1e-4  # relative error of a gradient, where there are kinks: the same notes, gradient checks
NUDGES = (1e-5, 1e-7)  # steps of the check: about the cube root of float64's precision; past fewer kinks
LOWEST, HIGHEST = 1e-7, 10.0  # rates of the range test
RATES = 100  # how many: each is larger by a fifth than the one before
BLOWN_UP = 4.0  # times the lowest loss, and the range test ends
RISE = 0.1  # of all that the loss falls, and it rises
WINDOW = 5  # losses of which a smoothed one is the mean
AT_ONCE = 10  # steps whose losses are read together, and so many steps late, so that the device never waits

BEFORE, AFTER = "at initialization", "after the steps"


def diagnose(
    experiment: Experiment, out: Path, data_dir: Path, first: int = 200, say: Callable[[str], None] = print
) -> None:
    """Runs the `first` steps of training and a range test of the learning rate; writes what they show, plots and
    figures, into the new folder `out`, and says what stands out. Raises `SeqlabError` where `train` does.
    """
    check_new(out)
    at_least("--first", first, 1)
    check(experiment)
    experiment, _, tokenizers, corpus = read_data(experiment, data_dir, out, say=say)
    plan = plan_batches(experiment, corpus, say)
    collate = functools.partial(make_batch, experiment.task, corpus, tokenizers)
    loss = functools.partial(experiment.task.loss, experiment.model)
    longest = max(itertools.islice(plan.batches(experiment.seed, 0), 20), key=lambda rows: sum(rows.shape))
    batch = fill_rows(collate(longest), len(jax.devices()))
    state = initial_state(experiment, batch)
    steps = min(first, experiment.steps)
    say(f"{sum(x.size for x in jax.tree.leaves(state.params)):,} parameters, {steps} steps")

    def batches() -> Iterator[Batch]:
        return (one for _, _, one in stream_of(plan, experiment.seed, collate, 0, 0))

    trained = run_steps(loss, optimizer_of(experiment), experiment.seed, state, batches(), steps)
    rates, losses = range_test(loss, experiment.optimizer, experiment.seed, state, batches())
    peak = float(make_schedule(experiment.schedule, experiment.steps)(np.arange(experiment.steps)).max())
    ways = {BEFORE: state.params, AFTER: trained.params}
    found = {
        "model": type(experiment.model).__name__,
        "losses": trained.losses,
        "gradients over time": {when: gradients_over_time(loss, params, batch) for when, params in ways.items()},
        "activations": {when: activations(loss, params, batch) for when, params in ways.items()},
        "updates": dict(zip(leaf_names(state.params), trained.ratios.T, strict=True)),
        "gradient check": gradient_check(
            in_float64(experiment), ways[AFTER if np.isfinite(trained.losses).all() else BEFORE], batch
        ),
        "learning rate": {**suggest(rates, losses), "peak of the config": peak},
    }
    found["findings"] = findings(found)
    with folder_made_whole(out) as folder:
        draw_gradients(found["gradients over time"], folder / "gradients_over_time.png")
        draw_activations(found["activations"], folder / "activations.png")
        draw_updates(found["updates"], folder / "updates.png")
        draw_rates(found["learning rate"], folder / "learning_rate.png")
        (folder / "diagnosis.json").write_text(json.dumps(plain(found), indent=1, allow_nan=False) + "\n")
    for line in found["findings"]:
        say(line)
    say(str(out))


# Gradients over time


class Reach(NamedTuple):
    """How the gradient of a loss changes with the place it arrives at. `norms`: by place, from 0 on. `factor`: by
    what a place further multiplies them, fitted. `left`: by what the whole way does. Both are NaN where nothing can
    be fitted.
    """

    norms: np.ndarray
    factor: float
    left: float
    verdict: str


def gradients_over_time(loss: Loss, params: Params, batch: Batch) -> dict[str, Reach]:
    """Norms of d loss / d embedding, or d loss / d numbers, means over the rows; the loss is that of the last target
    of each row alone, or of its one answer, without dropout.

    By positions back from that target, "target" or "source"; in the source of an encoder, which reads what it likes
    first, by position from its beginning, "encoder's source". Empty where the embeddings do not come from a `Table`
    or a `Vocabulary`.
    """
    last, batch = last_targets(batch)
    norms = jax.device_get(entry_gradients(loss, params, batch))
    weights = np.asarray(batch.weights).reshape(len(last), -1)
    found = {}
    for side, tokens in (("source", batch.inputs), ("target", batch.prefix)):
        if tokens is None or side not in norms:
            continue
        real = np.asarray(tokens.mask) & weights.any(1, keepdims=True)
        at = np.arange(real.shape[1])
        if side == "source" and batch.prefix is not None:
            found["encoder's source"] = reach(by_place(norms[side], np.where(real, at, -1)), "the end")
            continue
        segments = getattr(tokens, "segments", None)
        if segments is not None:
            real = real & (segments == np.take_along_axis(np.asarray(segments), last[:, None], axis=1))
        found[side] = reach(by_place(norms[side], np.where(real, last[:, None] - at, -1)))
    return found


def last_targets(batch: Batch) -> tuple[Int[np.ndarray, "B"], Batch]:
    """Where each row's last target is, and the batch with the weights of all others zero."""
    weights = np.asarray(batch.weights)
    if weights.ndim == 1 and batch.inputs is not None:
        return np.asarray(batch.inputs.mask).sum(1) - 1, batch
    length = weights.shape[1]
    last = length - 1 - (weights[:, ::-1] > 0).argmax(1)
    return last, dataclasses.replace(batch, weights=weights * (np.arange(length) == last[:, None]))


@functools.partial(jax.jit, static_argnums=0)
def entry_gradients(loss: Loss, params: Params, batch: Batch) -> dict[str, Float[Array, "B T"]]:
    """Norms of the gradient with respect to what enters the model, by side and position."""
    sides = (("source", batch.inputs), ("target", batch.prefix))
    ids = {side: tokens.ids for side, tokens in sides if isinstance(tokens, Tokens)}

    def run(enter: Callable[[str, jax.Array], jax.Array]) -> jax.Array:
        """The loss, where `enter(side, x)` stands for what enters, x."""

        def at_tables(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            found = call(*args, **kwargs)
            if isinstance(context.module, Table | Vocabulary):
                for side, one in ids.items():
                    if args and args[0] is one:
                        return enter(side, found)
            return found

        inputs = batch.inputs
        if isinstance(inputs, Series):
            inputs = dataclasses.replace(inputs, values=enter("source", inputs.values))
        with nn.intercept_methods(at_tables):
            return loss(params, dataclasses.replace(batch, inputs=inputs), None, None)[0]

    shapes: dict[str, Any] = {}

    def look(side: str, x: jax.Array) -> jax.Array:
        shapes[side] = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return x

    jax.eval_shape(functools.partial(run, look))
    gradients = jax.grad(lambda by: run(lambda side, x: x + by[side]))(zeros_like(shapes))
    return jax.tree.map(norms_of, gradients)


def norms_of(x: Float[Array, "... D"]) -> Float[Array, "..."]:
    """Norms over the last axis of what is too small to be squared."""
    largest = jnp.abs(x).max(-1, keepdims=True)
    return jnp.linalg.norm(x / jnp.where(largest > 0, largest, 1.0), axis=-1) * largest[..., 0]


def by_place(norms: Float[np.ndarray, "B T"], places: Int[np.ndarray, "B T"]) -> Float[np.ndarray, "N"]:
    """The mean norm at each place; a place below 0 is none."""
    there = places >= 0
    return np.bincount(places[there], norms[there]) / np.maximum(np.bincount(places[there]), 1)


def reach(norms: Float[np.ndarray, "N"], far: str = "") -> Reach:
    """A straight line through log norms, by least squares; places without a gradient are left out, but where the far
    end is one of them, nothing is left.
    """
    at = np.flatnonzero(norms > 0)
    if len(at) < 2 or not np.isfinite(norms).all():
        return Reach(norms, math.nan, math.nan, "not to be told")
    slope = float(np.polyfit(at, np.log(norms[at]), 1)[0])
    left = math.exp(np.clip(slope * (len(norms) - 1), -700, 700)) if norms[-1] > 0 else 0.0
    verdict = "it reaches all the way"
    if left < VANISHED:
        verdict = f"vanishing{far and f' towards {far}'}"
    elif left > 1 / VANISHED:
        verdict = "vanishing towards the beginning" if far else "exploding"
    return Reach(norms, math.exp(slope), left, verdict)


# Activations


def activations(loss: Loss, params: Params, batch: Batch) -> dict[str, dict[str, float]]:
    """Of what each layer gives, over the real positions: its root mean square, the share of its units that are zero
    at all of them (a ReLU's that are dead), and of gates and of a tanh the share of values that are saturated.
    """
    return jax.tree.map(float, jax.device_get(measure(loss, params, batch)))


@functools.partial(jax.jit, static_argnums=0)
def measure(loss: Loss, params: Params, batch: Batch) -> dict[str, dict[str, jax.Array]]:
    rows = batch.weights.reshape(len(batch.weights), -1).any(1)
    masks = {"row": rows}
    for side, tokens in (("source", batch.inputs), ("target", batch.prefix)):
        if tokens is not None:
            masks[side] = tokens.mask & rows[:, None]
    found = sides_of(loss, params, batch)
    return OrderedDict(  # unlike a dict's, its order outlives JAX
        (name, statistics(x, masks[found[name]], BOUNDS.get(name.rpartition(" ")[2])))
        for name, x in outputs_of_layers(loss, params, batch).items()
        if name in found
    )


def statistics(
    x: Float[Array, "..."], real: Bool[Array, "..."], bounds: tuple[float, float] | None = None
) -> dict[str, jax.Array]:
    """Of an array whose first axes are those of `real`; all others are units."""
    x = x.reshape(*real.shape, -1)
    real = real[..., None]
    values = jnp.maximum(real.sum() * x.shape[-1], 1)
    found = {
        "rms": jnp.sqrt(jnp.where(real, x * x, 0.0).sum() / values),
        "dead": ((x == 0) | ~real).all(tuple(range(real.ndim - 1))).mean(),
    }
    if bounds is not None:
        low, high = bounds
        found["saturated"] = (((x < low) | (x > high)) & real).sum() / values
    return found


def sides_of(loss: Loss, params: Params, batch: Batch) -> dict[str, str]:
    """Of each layer's output whether it has a vector for each position of the source, of the target, or for each row;
    others are left out. Told from the shapes that it takes for sides of two lengths.
    """

    def shapes(source: int, target: int) -> dict[str, tuple[int, ...]]:
        def of_length(length: int, tree: Any) -> Any:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(x), length, *x.shape[2:]), x.dtype), tree)

        inputs, prefix = of_length(source, batch.inputs), of_length(target, batch.prefix)
        answers = batch.targets, batch.weights
        if batch.weights.ndim == 2:
            answers = of_length(source if batch.prefix is None else target, answers)
        cut = dataclasses.replace(batch, inputs=inputs, prefix=prefix, targets=answers[0], weights=answers[1])
        found = jax.eval_shape(functools.partial(outputs_of_layers, loss), params, cut)
        return {name: x.shape for name, x in found.items()}

    sides = {}
    for (name, one), other in zip(shapes(2, 3).items(), shapes(3, 2).values(), strict=True):
        side = {(2, 3): "source", (3, 2): "target"}.get((one[1], other[1]))
        if side is not None and len(one) > 2:
            sides[name] = side
        elif one == other and len(one) == 2:
            sides[name] = "row"
    return sides


def outputs_of_layers(loss: Loss, params: Params, batch: Batch) -> dict[str, jax.Array]:
    """What the modules give in a forward pass, by path: vectors for rows or positions. Of a gated recurrent layer its
    gates too. What is computed inside a loop is not seen, nor what a module hands on as another gave it.
    """
    found: dict[str, jax.Array] = {}
    calls: Counter[str] = Counter()
    outside, looking = current_trace(), True

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal looking
        result = call(*args, **kwargs)
        module = context.module
        if not looking or context.method_name not in ("__call__", "embed") or current_trace() != outside:
            return result
        x = result[0] if isinstance(result, tuple) else result
        if x.ndim < 2 or any(x is one for one in found.values()):
            return result
        path = ".".join(module.path) or type(module).__name__
        calls[path] += 1
        name = path if calls[path] == 1 else f"{path} ({calls[path]})"
        found[f"{name} tanh" if isinstance(module, Recurrent) and module.cell == "rnn" else name] = x
        if isinstance(module, Recurrent):
            looking = False
            found.update(
                {f"{name} {gate} gate": y for gate, y in gates(module, args[0], x, *args[2:], **kwargs).items()}
            )
            looking = True
        return result

    with nn.intercept_methods(note):
        loss(params, batch, None, None)
    return found


def gates(
    layer: Recurrent,
    x: Float[Array, "B T F"],
    h: Float[Array, "B T D"],
    state: Any = None,
    *,
    segments: Int[Array, "B T"] | None = None,
    reverse: bool = False,
) -> dict[str, Float[Array, "B T D"]]:
    """The sigmoids of an LSTM or a GRU at all positions, made again from what the layer has read, x, and given, h."""
    names = {"lstm": "ifgo", "gru": "rz"}.get(layer.cell, "")
    if not names:
        return {}
    begin = (layer.initial(len(x)) if state is None else state)[0][:, None]
    before = jnp.concatenate([h[:, 1:], begin] if reverse else [begin, h[:, :-1]], axis=1)
    if segments is not None:
        fresh = segments != jnp.roll(segments, -1 if reverse else 1, axis=1)
        before = jnp.where(fresh[..., None], 0.0, before)
    width = len(names) * layer.dim
    u = layer.multiplier()("recurrent" if layer.reset == "after" else "gates", before)
    u = layer.recurrent_norm(u) if layer.layer_norm else u
    values = jax.nn.sigmoid(layer.project(x)[..., :width] + u[..., :width])
    return {name: y for name, y in zip(names, jnp.split(values, len(names), axis=-1), strict=True) if name != "g"}


# Steps, and the learning rate


class Steps(NamedTuple):
    """Parameters after some steps, and of each step the mean loss [N] and by parameter the ratio of update to
    parameter [N P].
    """

    params: Params
    losses: np.ndarray
    ratios: np.ndarray


def run_steps(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    seed: int,
    state: TrainState,
    batches: Iterator[Batch],
    count: int,
    enough: Callable[[np.ndarray], bool] = lambda losses: False,
) -> Steps:
    """`count` steps of training from the parameters of `state`, or until the losses so far are enough."""
    runner = make_runner()
    optimizer = watched(optimizer)
    step = make_step(loss, optimizer, seed)

    def advance(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        state, _ = step(state, batch)
        mean = state.sums["loss"] / jnp.maximum(state.sums["weight"], 1.0)
        told = {"loss": mean, "ratios": jnp.stack(jax.tree.leaves(state.optimizer[1]))}
        return dataclasses.replace(state, sums=zeros_like(state.sums)), told

    run = runner.compile(advance)
    state = dataclasses.replace(state, optimizer=optimizer.init(state.params))
    state = runner.place(jax.tree.map(jnp.copy, state))  # a step consumes what it is given
    told: list[Any] = []
    waiting: list[Any] = []
    with progress("steps", count) as bar:
        for batch in itertools.islice(batches, count):
            state, now = run(state, runner.feed(fill_rows(batch, runner.parts)))
            waiting.append(now)
            bar()
            if len(waiting) == 2 * AT_ONCE:
                told += jax.device_get(waiting[:AT_ONCE])
                del waiting[:AT_ONCE]
                if enough(np.array([one["loss"] for one in told])):
                    break
    told += jax.device_get(waiting)
    return Steps(state.params, *(np.array([one[name] for one in told]) for name in ("loss", "ratios")))


def watched(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer, with a state that holds beside its own, by parameter, the norm of the last update over that of
    the parameter.
    """

    def init(params: Params) -> Any:
        return optimizer.init(params), jax.tree.map(lambda _: jnp.float32(0), params)

    def update(updates: Any, state: Any, params: Params = None) -> tuple[Any, Any]:
        updates, inner = optimizer.update(updates, state[0], params)
        return updates, (inner, jax.tree.map(lambda u, p: optax.tree.norm(u) / optax.tree.norm(p), updates, params))

    return optax.GradientTransformation(init, update)


def range_test(
    loss: Loss, optimizer: Optimizer, seed: int, state: TrainState, batches: Iterator[Batch]
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Learning rates that grow by the same factor in each step, and the losses at them (Smith 2017, section 3.3),
    until the loss blows up.
    """
    growth = (HIGHEST / LOWEST) ** (1 / (RATES - 1))
    steps = run_steps(
        loss, optimizer_at(optimizer, lambda t: LOWEST * growth**t), seed, state, batches, RATES,
        lambda losses: usable(losses) < len(losses),
    )  # fmt: skip
    return LOWEST * growth ** np.arange(len(steps.losses)), steps.losses


def smooth(losses: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """The mean over `WINDOW` losses around each one; at the ends, over those there are."""
    sums, counts = (np.convolve(x, np.ones(WINDOW)) for x in (losses, np.ones(len(losses))))
    return (sums / counts)[WINDOW // 2 :][: len(losses)]


def usable(losses: Float[np.ndarray, "N"]) -> int:
    """How many losses there are before they are no longer finite, or the smoothed loss is far above its lowest."""
    finite = int(np.argmin(np.append(np.isfinite(losses), False)))
    if not finite:
        return 0
    smoothed = smooth(losses[:finite])
    over = smoothed > BLOWN_UP * np.minimum.accumulate(smoothed)
    return int(over.argmax()) if over.any() else finite


def suggest(rates: Float[np.ndarray, "N"], losses: Float[np.ndarray, "N"]) -> dict[str, Any]:
    """Of a range test: the rate at which the smoothed loss falls steepest over the logarithm of the rate, and the
    highest before it rises; None of a loss that does not fall.
    """
    count = usable(losses)
    found = {"rates": rates, "losses": losses, "smoothed": smooth(losses[:count]) if count else losses[:0]}
    lowest = lowest_before_rise(found["smoothed"]) if count else 0
    if not lowest:
        return {**found, "steepest": None, "highest": None}
    slopes = smooth(np.gradient(found["smoothed"], np.log(rates[:count])))
    return {**found, "steepest": float(rates[slopes[: lowest + 1].argmin()]), "highest": float(rates[lowest])}


def lowest_before_rise(smoothed: Float[np.ndarray, "N"]) -> int:
    """Where a loss is lowest before it first rises; once it has come halfway down, for until then noise is large."""
    fall, lowest = smoothed[0] - smoothed.min(), np.minimum.accumulate(smoothed)
    risen = (smoothed - lowest > RISE * fall) & (smoothed[0] - lowest > fall / 2)
    return int(smoothed[: risen.argmax() if risen.any() else None].argmin())


# The gradient check


def in_float64(experiment: Experiment) -> Loss:
    """The experiment's loss, its model to be run in float64."""
    model = experiment.model
    return functools.partial(experiment.task.loss, model.clone(dtype="float64") if hasattr(model, "dtype") else model)


def gradient_check(loss: Loss, params: Params, batch: Batch, rows: int = 4, seed: int = 0) -> dict[str, float]:
    """By parameter: how far the derivative of the mean loss along a direction is from central differences, relative
    to the larger of both; the worst of two directions. In float64, without dropout, on the first `rows` of the batch.

    Where the differences disagree they are taken again over a shorter way: that mends a kink, and no wrong gradient.
    A direction is random and leans towards the gradient, so that there is something to measure. A derivative below
    1e-5 of the norm of the whole gradient is measured against that: differences of rounded losses tell no less.
    """
    random = np.random.default_rng(seed)
    with jax.enable_x64(True):
        leaves, tree = jax.tree.flatten(jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), params))
        few = jax.tree.map(lambda x: jnp.asarray(x[:rows], float if x.dtype == np.float32 else None), batch)

        def mean(leaves: list[jax.Array], batch: Batch) -> jax.Array:
            total, weight, _, _ = loss(jax.tree.unflatten(tree, leaves), batch, None, None)
            return total / jnp.maximum(weight, 1.0)

        value = jax.jit(mean)
        gradients = [np.asarray(g) for g in jax.jit(jax.grad(mean))(leaves, few)]
        least = 1e-5 * math.sqrt(sum((g * g).sum() for g in gradients))

        def error(i: int, nudge: float, way: np.ndarray) -> float:
            ends = [value([*leaves[:i], leaves[i] + h * way, *leaves[i + 1 :]], few) for h in (nudge, -nudge)]
            measured, claimed = float(ends[0] - ends[1]) / (2 * nudge), float((gradients[i] * way).sum())
            return abs(measured - claimed) / max(abs(measured), abs(claimed), least)

        errors = {}
        for i, name in enumerate(leaf_names(params)):
            ways = [unit(unit(random.normal(size=leaves[i].shape)) + unit(gradients[i])) for _ in range(2)]
            found = [error(i, NUDGES[0], way) for way in ways]
            if not np.max(found) < WRONG:
                found = [error(i, NUDGES[1], way) for way in ways]
            errors[name] = float(np.max(found))
    return errors


def unit(x: np.ndarray) -> np.ndarray:
    return x / (np.linalg.norm(x) or 1.0)


def leaf_names(params: Params) -> list[str]:
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    return [jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("params.") for path in paths]


# What is told


def findings(found: Mapping[str, Any]) -> list[str]:
    """A line for each thing that was looked at."""
    lines = []
    finite = np.isfinite(found["losses"])
    if not finite.all():
        lines.append(f"training: the loss of step {int(finite.argmin()) + 1} is not finite")
    for when, sides in found["gradients over time"].items():
        for side, one in sides.items():
            places = f"over {len(one.norms) - 1} of them x {one.left:.2g}"
            lines.append(f"gradient, {side}, {when}: x {one.factor:.3g} a position, {places}: {one.verdict}")
        if not sides:
            lines.append(f"gradient over time, {when}: not to be told, this model has its embeddings elsewhere")
    layers = found["activations"][AFTER]
    dead = {name: one["dead"] for name, one in layers.items() if one["dead"] > DEAD}
    lines.append(f"dead units, {AFTER}: {listed(dead, '{:.0%}') or f'no layer has more than {DEAD:.0%}'}")
    gated = {name: one["saturated"] for name, one in layers.items() if "saturated" in one}
    if gated:
        saturated = {name: share for name, share in gated.items() if share > SATURATED}
        lines.append(f"saturated, {AFTER}: {listed(saturated, '{:.0%}') or f'no gate in more than {SATURATED:.0%}'}")
    by_step = {name: one for name, one in found["updates"].items() if np.isfinite(one[0])}  # others begin at zero
    ratios = {name: float(np.median(one[len(one) // 2 :])) for name, one in by_step.items()}
    largest = max(by_step, key=lambda name: by_step[name].max())
    lines.append(
        f"updates: {np.median([*ratios.values()]):.1e} of a parameter, where about {RATIO:.0e} is usual; at most "
        f"{by_step[largest].max():.1e}, of {largest} in step {by_step[largest].argmax() + 1}"
    )
    for what, far in (
        ("small", {name: ratio for name, ratio in ratios.items() if ratio < RATIO / AROUND}),
        ("large", {name: ratio for name, ratio in ratios.items() if ratio > RATIO * AROUND}),
    ):
        if far:
            lines.append(f"{what} updates: {listed(far, '{:.1e}')}")
    worst, error = max(found["gradient check"].items(), key=lambda one: np.nan_to_num(one[1], nan=np.inf))
    right = "right" if error < WRONG else f"WRONG, {WRONG:.0e} is what kinks can do"
    lines.append(f"gradient check: worst relative error {error:.1e}, of {worst}: {right}")
    test = found["learning rate"]
    if test["steepest"] is None:
        lines.append("learning rate: the loss falls at none")
    else:
        lines.append(
            f"learning rate: the loss falls steepest at {test['steepest']:.1e}, and up to {test['highest']:.1e}; the "
            f"config's peak is {test['peak of the config']:.1e}"
        )
    return lines


def listed(values: Mapping[str, float], form: str, most: int = 5) -> str:
    """The first few, and how many more."""
    shown = [f"{name} {form.format(value)}" for name, value in itertools.islice(values.items(), most)]
    return ", ".join([*shown, *([f"and {len(values) - most} more"] if len(values) > most else [])])


def plain(value: Any) -> Any:
    """What JSON can hold; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, Reach):
        return plain(value._asdict())
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


# Plots


def draw_gradients(found: Mapping[str, Mapping[str, Reach]], path: Path) -> None:
    """A panel for each side: norms by place, at both times."""
    sides = list(dict.fromkeys(side for one in found.values() for side in one))
    figure, axes = panels(max(len(sides), 1), 8.0 if len(sides) < 2 else 5.5, 3.8)
    for axis, side in zip(axes, sides, strict=False):
        for when, one in found.items():
            label = f"{side}, {when}: x {one[side].factor:.3g} a position"
            norms = np.where(one[side].norms > 0, one[side].norms, np.nan)
            axis.plot(norms, ".-" if len(norms) < 50 else "-", linewidth=1, label=label)
        axis.set(title=f"gradient in the {side}", yscale="log", ylabel="norm of d loss / d input")
        axis.set_xlabel("position" if side == "encoder's source" else "positions back from the last target")
        axis.xaxis.get_major_locator().set_params(integer=True)
    if not sides:
        axes[0].set_title("embeddings not found")
    finish(figure, axes, path)


def draw_activations(found: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> None:
    """A line for each layer, the first on top: the size of what it gives, and what share is dead or saturated."""
    from matplotlib.ticker import LogLocator

    names = list(found[AFTER])
    figure, (sizes, shares) = panels(2, 5.0, 1.4 + 0.17 * len(names), sharey=True)
    rows = np.arange(len(names))
    for (when, layers), filled in zip(found.items(), ("none", "full"), strict=True):
        style: dict[str, Any] = {"linestyle": "none", "fillstyle": filled, "markersize": 5}
        sizes.plot([layers[name]["rms"] or np.nan for name in names], rows, "o", color="C0", label=when, **style)
        shares.plot([layers[name]["dead"] for name in names], rows, "o", color="C3", label=f"dead, {when}", **style)
        gated = [i for i, name in enumerate(names) if "saturated" in layers[name]]
        if gated:
            saturated = [layers[names[i]]["saturated"] for i in gated]
            shares.plot(saturated, gated, "s", color="C2", label=f"saturated, {when}", **style)
    sizes.set_yticks(rows, names, fontsize=7)
    sizes.set(xscale="log", xlabel="root mean square", title="activations", ylim=(len(names) - 0.5, -0.5))
    low, high = sizes.get_xlim()
    sizes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    sizes.xaxis.set_major_formatter("{x:g}")
    sizes.minorticks_off()
    shares.set(xlim=(-0.05, 1.05), xlabel="share of units (dead) or values (saturated)", title="dead and saturated")
    finish(figure, [sizes, shares], path)


def draw_updates(found: Mapping[str, np.ndarray], path: Path) -> None:
    """A line for each parameter, a column for each step; grey is the usual size, white a parameter that is zero."""
    figure, (axis,) = panels(1, 9.0, 1.4 + 0.15 * len(found))
    values = np.array(list(found.values()))
    with np.errstate(divide="ignore"):
        values = np.log10(np.where(np.isfinite(values), values, np.nan))
    usual = math.log10(RATIO)
    extent = (0.5, values.shape[1] + 0.5, len(found) - 0.5, -0.5)
    image = axis.imshow(
        values, aspect="auto", interpolation="nearest", cmap="coolwarm", vmin=usual - 2, vmax=usual + 2, extent=extent
    )
    axis.set_yticks(np.arange(len(found)), list(found), fontsize=7)
    axis.set(xlabel="step", title="norm of the update over norm of the parameter")
    figure.colorbar(image, label="log10 of the ratio", shrink=min(1.0, 20 / len(found)))
    finish(figure, [], path)


def draw_rates(test: Mapping[str, Any], path: Path) -> None:
    """The loss over the rate, and the rates that are suggested."""
    figure, (axis,) = panels(1, 8.0, 4.0)
    rates, smoothed = test["rates"], test["smoothed"]
    axis.plot(rates, test["losses"], ".", color="0.75", label="loss of a batch")
    axis.plot(rates[: len(smoothed)], smoothed, color="C0", label=f"mean of {WINDOW}")
    for name, color, line in (("steepest", "C2", "-"), ("highest", "C1", "-"), ("peak of the config", "C3", "--")):
        if test[name] is not None:
            axis.axvline(test[name], color=color, linestyle=line, label=f"{name}: {test[name]:.1e}")
    if len(smoothed):
        room = 0.15 * (smoothed[0] - smoothed.min()) + 1e-9
        axis.set_ylim(smoothed.min() - room, smoothed[0] + 5 * room)
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", title="learning-rate range test")
    finish(figure, [axis], path)


def panels(count: int, width: float, height: float, **more: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(count * width, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, **more)[0]


def finish(figure: Any, axes: Any, path: Path) -> None:
    """A legend above all panels, and the file."""
    for axis in axes:
        axis.grid(alpha=0.3)
    if any(axis.get_legend_handles_labels()[0] for axis in axes):
        figure.legend(loc="outside upper center", fontsize=8, ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
