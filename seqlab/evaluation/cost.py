"""The cost of a model: operations and their longest chain in the traced program, and measured time and memory.

The compiler's count includes the body of a loop once. This module therefore counts the traced program: matrix
products only, two operations for each multiplication, and the body of a loop as often as it runs.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from seqlab.catalogue import sizes_of, with_expected_sizes
from seqlab.codecs.codec import TextCodec
from seqlab.config import Experiment
from seqlab.data.batches import blank_batch
from seqlab.layers.nesting import modules_in
from seqlab.runs.parametrized import init_experiment_parameters
from seqlab.system.errors import SeqlabError
from seqlab.training.state import initial_state, training_step
from seqlab.types import Batch, Generator, Params, Tokens


class Cost(NamedTuple):
    """The cost of one call. `operations` counts the operations of matrix products. `sequential` is the longest chain
    of products in which each needs the result of the one before (the results of a loop exist at its end). `seconds`
    is the minimum over a few calls. `memory` is the bytes of arguments, results and temporaries, where the carried
    state is updated in place, as in training and in search.
    """

    operations: int
    sequential: int
    seconds: float
    memory: int


class Costs(NamedTuple):
    """`paths`: the maximum number of moves from a position of the source, or of the target, to the last output on the
    shortest path. A step of a recurrent layer, a convolution and an attention are one move each. None:
    some position does not reach it. Empty if the model does not declare it.
    """

    length: int
    paths: dict[str, int | None]
    training: Cost
    decoding: Cost | None


def with_sizes(experiment: Experiment) -> Experiment:
    """Returns the experiment with vocabularies of the configured size. Raises for a number of classes or symbols that
    neither the model nor the config states.
    """
    for path, module in modules_in(experiment.model):
        for name, column in sizes_of(module).items():
            codec = experiment.task.columns.get(column)
            if (
                getattr(module, name) == 0
                and codec is not None
                and codec.learned
                and not isinstance(codec, TextCodec)
            ):
                option = ".".join(filter(None, ("--model", path, name)))
                meaning = "number of classes" if name == "classes" else f"size {name!r} of the model"
                raise SeqlabError(f"the {meaning} is known only from the data: give {option} N")
    return with_expected_sizes(experiment)


def parameters(experiment: Experiment) -> int:
    params = jax.eval_shape(functools.partial(init_experiment_parameters, experiment))
    return sum(x.size for x in jax.tree.leaves(params))


def costs(experiment: Experiment, length: int, rows: int) -> Costs:
    """Returns the costs of one training step on `rows` rows of `length` positions, source and target alike, and, for
    a generator, of one decoding step at the last position with the experiment's beam.
    """
    if experiment.references:
        raise SeqlabError("seqlab cost does not support references")
    model = experiment.model
    batch = jax.tree.map(jnp.asarray, blank_batch(model, rows, length, experiment.task))
    state = initial_state(experiment, batch)
    decoding = decoding_cost(experiment, state.params, batch, length) if isinstance(model, Generator) else None
    paths = model.paths(length)
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
    """Returns the cost of `function(carried, *arguments)`, whose first result is the next `carried`."""
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
    """Returns the operations of a traced program, and the longest chain of products behind each result."""
    return count_from(program.jaxpr, [0] * len(program.jaxpr.invars))


def count_from(program: Jaxpr, depths: Sequence[int]) -> tuple[int, list[int]]:
    """Returns `count` for arguments that already depend on chains of products."""
    depth_of: dict[Any, int] = dict(zip(program.invars, depths, strict=True))
    total = 0

    def depths_of(variables: Sequence[Any]) -> list[int]:
        return [0 if isinstance(variable, Literal) else depth_of.get(variable, 0) for variable in variables]

    equation: Any
    for equation in program.eqns:
        before = depths_of(equation.invars)
        name, inner = equation.primitive.name, programs_of(equation)
        if name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left, result = (variable.aval.shape for variable in (equation.invars[0], equation.outvars[0]))
            total += 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)
            after = [max(before) + 1]
        elif name == "scan":
            operations, after = count_scan(equation, inner[0], before)
            total += operations
        elif name == "while":
            raise SeqlabError("a loop without a fixed number of iterations has no countable cost: use jax.lax.scan")
        elif name == "conv_general_dilated":
            raise SeqlabError("convolutions are counted as products of matrices: see seqlab/layers/convolution.py")
        elif name == "cond":
            branches = [count_from(branch, [max(before[0], depth) for depth in before[1:]]) for branch in inner]
            total += max(operations for operations, _ in branches)
            after = [max(result_depths) for result_depths in zip(*(depths for _, depths in branches), strict=True)]
        elif inner and len(inner[0].invars) == len(before):  # a call; the program of a scatter is of another kind
            operations, after = count_from(inner[0], before)
            total += operations
        else:
            after = [max(before, default=0)] * len(equation.outvars)
        depth_of.update(zip(equation.outvars, after, strict=True))
    return total, depths_of(program.outvars)


def count_scan(equation: Any, body: Any, before: list[int]) -> tuple[int, list[int]]:
    # JAX 0.10 and 0.11 store the numbers differently. Scanned arguments and results have one more axis outside.
    carried = sum(
        whole.aval.ndim == inner.aval.ndim for whole, inner in zip(equation.outvars, body.outvars, strict=True)
    )
    sliced = sum(whole.aval.ndim > inner.aval.ndim for whole, inner in zip(equation.invars, body.invars, strict=True))
    constants = len(before) - carried - sliced
    fixed, carry, slices = before[:constants], before[constants : constants + carried], before[constants + carried :]
    operations, outputs = 0, []
    for _ in range(equation.params["length"]):
        operations, after = count_from(body, [*fixed, *carry, *slices])
        carry, outputs = after[:carried], after[carried:]
    return operations * equation.params["length"], [*carry, *outputs]


def programs_of(equation: Any) -> list[Jaxpr]:
    """Returns the programs inside an equation: the body of a loop, the branches of a `cond`, the target of a call."""
    programs = []
    for value in equation.params.values():
        for program in value if isinstance(value, tuple | list) else (value,):
            if isinstance(program, ClosedJaxpr):
                programs.append(program.jaxpr)
            elif isinstance(program, Jaxpr):
                programs.append(program)
    return programs
