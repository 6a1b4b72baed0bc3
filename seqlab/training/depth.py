"""Learning rates by depth: lower layers change more slowly (Howard & Ruder 2018)."""

import re
from collections.abc import Iterable, Mapping

import jax
from flax.traverse_util import flatten_dict

from seqlab.config import Experiment
from seqlab.layers.axes import AxesByPath
from seqlab.layers.nesting import readers_of
from seqlab.runs.parameters import axes_of
from seqlab.runs.parametrized import ADDED, init_experiment_parameters
from seqlab.system.errors import SeqlabError

NUMBERED = re.compile(r"(\w+)_(\d+)")  # a layer, such as stack_0
PARALLEL = ("convolutions",)  # numbered modules that read the same input and so are not a stack


def depth_factors(experiment: Experiment) -> dict[str, float]:
    """Returns the factor of the learning rate of each parameter, by path; an empty dict for a decay of 1.

    Layer i of a stack of n numbered layers has the factor decay ** (n - 1 - i), and embeddings and readers have
    decay ** n, where n is the size of the deepest stack in the innermost module that contains both. Other parameters
    have the factor 1. An added parameter has the factor of its base. Raises `SeqlabError` if there is no stack.
    """
    decay, model = experiment.optimizer.depth_decay, experiment.model
    if decay == 1:
        return {}
    shapes = jax.eval_shape(lambda: init_experiment_parameters(experiment))
    places = {path: place_of(path) for path in flatten_dict(shapes, sep="/")}
    axes, readers = axes_of(model), [tuple(path.split(".")) for path in readers_of(model)]
    bottom = {place for place in places.values() if is_embedding(place, axes, readers)}
    depths = depths_of(set(places.values()) - bottom)
    if not any(depths.values()):
        name = type(model).__name__
        raise SeqlabError(f"optimizer.depth_decay: {name} has no stack of several layers: set it to 1")
    depths |= {place: depth_below(place, depths) for place in bottom}
    return {path: decay ** depths[place] for path, place in places.items()}


def place_of(path: str) -> tuple[str, ...]:
    """Returns the path of a parameter below "params", or that of the base of an added parameter.

    "added/params.stack_0.kernel/a" -> ("stack_0", "kernel")
    """
    branch, *rest = path.split("/")
    return tuple(rest[0].split(".")[1:] if branch == ADDED else rest)


def is_embedding(place: tuple[str, ...], axes: AxesByPath, readers: Iterable[tuple[str, ...]]) -> bool:
    """Returns whether a parameter has the width of embeddings as a declared axis, or belongs to a reader."""
    declared = axes.get("/".join(place))
    in_reader = any(place[: len(reader)] == reader for reader in readers)
    return in_reader or (declared is not None and "width" in declared.names)


def depths_of(places: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Returns the number of layers above each parameter, in its stack and in the stacks around it."""
    layers = {place: list(layers_in(place)) for place in places}
    sizes: dict[tuple[str, ...], int] = {}
    for stack, number in (layer for stacks in layers.values() for layer in stacks):
        sizes[stack] = max(sizes.get(stack, 0), number + 1)
    return {place: sum(sizes[stack] - 1 - number for stack, number in stacks) for place, stacks in layers.items()}


def layers_in(place: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], int]]:
    """Yields the stack and the number of each layer that contains a parameter."""
    for i, name in enumerate(place):
        match = NUMBERED.fullmatch(name)
        if match and match[1] not in PARALLEL:
            yield (*place[:i], match[1]), int(match[2])


def depth_below(place: tuple[str, ...], depths: Mapping[tuple[str, ...], int]) -> int:
    """Returns the number of layers above an embedding: those of the deepest stack in the innermost module around it
    that contains a layer.
    """
    for end in reversed(range(len(place))):
        inside = [depth for layer, depth in depths.items() if layer[:end] == place[:end] and any(layers_in(layer))]
        if inside:
            return 1 + max(inside)
    return 0
