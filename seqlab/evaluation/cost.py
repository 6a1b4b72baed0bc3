"""What a model costs: operations and their order by analysis of the traced program, time and memory measured beside.

The compiler's own count takes a loop's body for one pass, so what is counted here is the traced program: the products
of matrices alone, 2 operations for each multiplication, and a loop's body as often as it runs.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from seqlab.catalogue import SIZES, sized
from seqlab.config import Experiment
from seqlab.data.padding import blank_batch
from seqlab.system.errors import SeqlabError
from seqlab.training.state import initial_state, training_step
from seqlab.types import Batch, Params, Tokens


class Cost(NamedTuple):
    """Of one call: operations; the longest chain of products of which each waits for the one before, as the program
    is written (what a loop gives is there at its end); seconds, the least of a few calls; bytes of arguments, results
    and all between them. What a step carries on stands in the place of what it got, as in training and in search.
    """

    operations: int
    sequential: int
    seconds: float
    memory: int


class Costs(NamedTuple):
    """`paths`: how often what stands somewhere in the source, or in the target, must be moved from one position to
    another to have its say in the last output, by the shortest way from where that is longest: a step of a recurrent
    layer, a convolution and a look are one move each. None: from somewhere it has no say. Empty if the model does not
    declare them.
    """

    length: int
    paths: dict[str, int | None]
    training: Cost
    decoding: Cost | None


def with_sizes(experiment: Experiment) -> Experiment:
    """Vocabularies as large as the config asks for. Raises for classes and symbols, of which the data knows how many,
    unless the model says.
    """
    model, columns = experiment.model, experiment.task.columns
    for name, column in SIZES.items():
        if getattr(model, name, None) == 0 and columns[column] != "text":
            raise SeqlabError(f"how many there are is known from the data alone: give --model.{name} N")
    return dataclasses.replace(experiment, model=sized(model, experiment.text.size))


def parameters(experiment: Experiment) -> int:
    state = jax.eval_shape(functools.partial(initial_state, experiment), blank_batch(experiment.task))
    return sum(x.size for x in jax.tree.leaves(state.params))


def costs(experiment: Experiment, length: int, rows: int) -> Costs:
    """Of one training step on `rows` rows of `length` positions, source and target alike, and, of a generator, of one
    decoding step at the last of them, with the experiment's beam.
    """
    model, task = experiment.model, experiment.task
    batch = jax.tree.map(jnp.asarray, blank_batch(task, rows, length))
    state = initial_state(experiment, batch)
    decoding = decoding_cost(experiment, state.params, batch, length) if task.KIND == "generator" else None
    paths = model.paths(length) if hasattr(model, "paths") else {}
    return Costs(length, paths, measure(training_step(experiment), state, batch), decoding)


def decoding_cost(experiment: Experiment, params: Params, batch: Batch, length: int) -> Cost:
    model, beam, rows = experiment.model, experiment.search.beam, len(batch.weights)
    prompt = Tokens(jnp.ones((rows, 1), int), jnp.ones((rows, 1), bool))
    start = functools.partial(model.apply, method="start", capacity=length, hypotheses=beam)
    memory, state = jax.jit(start)(params, batch.inputs, prompt)

    def step(state: Any, params: Params, memory: Any, token: jax.Array, t: jax.Array) -> tuple[Any, jax.Array]:
        logits, state = model.apply(params, memory, state, token, t, method="step")
        return state, logits

    return measure(step, state, params, memory, jnp.ones((rows, beam), int), jnp.int32(length - 1))


def measure(function: Callable[..., Any], carried: Any, *arguments: Any) -> Cost:
    """Of `function(carried, *arguments)`, which gives what is carried on, and more."""
    operations, depths = count(jax.make_jaxpr(function)(carried, *arguments))
    compiled = jax.jit(function, donate_argnums=0).lower(carried, *arguments).compile()
    carried, _ = jax.block_until_ready(compiled(carried, *arguments))
    best, begun = math.inf, time.perf_counter()
    while best == math.inf or time.perf_counter() - begun < 0.5:
        started = time.perf_counter()
        carried, _ = jax.block_until_ready(compiled(carried, *arguments))
        best = min(best, time.perf_counter() - started)
    size: Any = compiled.memory_analysis()
    memory = size.argument_size_in_bytes + size.output_size_in_bytes + size.temp_size_in_bytes
    return Cost(operations, max(depths, default=0), best, memory - size.alias_size_in_bytes)


def count(program: ClosedJaxpr) -> tuple[int, list[int]]:
    """Operations of a traced program, and for each result the longest chain of products behind it."""
    return count_from(program.jaxpr, [0] * len(program.jaxpr.invars))


def count_from(program: Jaxpr, depths: Sequence[int]) -> tuple[int, list[int]]:
    """`count` for arguments that have chains behind them already."""
    known: dict[Any, int] = dict(zip(program.invars, depths, strict=True))
    total = 0

    def behind(variables: Sequence[Any]) -> list[int]:
        return [0 if isinstance(one, Literal) else known.get(one, 0) for one in variables]

    equation: Any
    for equation in program.eqns:
        before = behind(equation.invars)
        name, inner = equation.primitive.name, programs_of(equation)
        if name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left, result = (one.aval.shape for one in (equation.invars[0], equation.outvars[0]))
            total += 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)
            after = [max(before) + 1]
        elif name == "scan":
            operations, after = count_scan(equation, inner[0], before)
            total += operations
        elif name == "while":
            raise SeqlabError("a loop that ends when it will has no countable cost: use jax.lax.scan")
        elif name == "conv_general_dilated":
            raise SeqlabError("convolutions are counted as products of matrices: see seqlab/layers/convolution.py")
        elif name == "cond":
            found = [count_from(branch, [max(before[0], one) for one in before[1:]]) for branch in inner]
            total += max(operations for operations, _ in found)
            after = [max(one) for one in zip(*(depths for _, depths in found), strict=True)]
        elif inner and len(inner[0].invars) == len(before):  # a call; a scatter has a program of another kind
            operations, after = count_from(inner[0], before)
            total += operations
        else:
            after = [max(before, default=0)] * len(equation.outvars)
        known.update(zip(equation.outvars, after, strict=True))
    return total, behind(program.outvars)


def count_scan(equation: Any, body: Any, before: list[int]) -> tuple[int, list[int]]:
    # JAX 0.10 and 0.11 note the numbers differently; what a pass sees or makes a slice of has an axis more outside.
    carried = sum(whole.aval.ndim == one.aval.ndim for whole, one in zip(equation.outvars, body.outvars, strict=True))
    sliced = sum(whole.aval.ndim > one.aval.ndim for whole, one in zip(equation.invars, body.invars, strict=True))
    constants = len(before) - carried - sliced
    fixed, carry, slices = before[:constants], before[constants : constants + carried], before[constants + carried :]
    operations, outputs = 0, []
    for _ in range(equation.params["length"]):
        operations, after = count_from(body, [*fixed, *carry, *slices])
        carry, outputs = after[:carried], after[carried:]
    return operations * equation.params["length"], [*carry, *outputs]


def programs_of(equation: Any) -> list[Jaxpr]:
    """The programs inside an equation: a loop's body, the branches of a choice, what a call calls."""
    found = []
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, ClosedJaxpr):
                found.append(one.jaxpr)
            elif isinstance(one, Jaxpr):
                found.append(one)
    return found
