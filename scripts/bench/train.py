"""Measures training steps of the same models in seqlab and PyTorch, in tokens per second.

    python scripts/bench/train.py [--only transformer lstm gru_attention tcn] [--rounds 5]

Before anything is timed, both must have the same loss and gradient with the same parameters on the same tokens, for
two shapes. After the first round, which compiles, the mean losses of its steps must again agree, within 0.1 %
(bfloat16 in PyTorch: 1 %), and must differ from the initial loss. (nn.LSTM and nn.GRU have two biases per gate and
train both.) Then all take turns in one process, with several steps per round and an allocator that keeps freed
memory. PyTorch uses fused optimizers and the faster of eager and compiled execution. Its bfloat16 is autocast; ours
is float32 unless a model says otherwise. There is no dropout and no padding.
"""

import contextlib
import dataclasses
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from memory import left_behind, mebibytes
from rounds import CORES, check_names, fastest, in_turns, row, seconds, tell, with_allocator

from seqlab.config import Experiment, Optimizer, Parallel, Schedule
from seqlab.distributed.devices import make_runner
from seqlab.evaluation.cost import count
from seqlab.models.bahdanau import Bahdanau
from seqlab.models.recurrent_lm import RecurrentLM
from seqlab.models.tcn_lm import TCNLM
from seqlab.models.transformer import Transformer
from seqlab.readers.words import Words
from seqlab.system.memory import keep_freed_memory
from seqlab.tasks.language_modeling import LanguageModeling
from seqlab.tasks.translation import Translation
from seqlab.training.state import initial_state, training_step
from seqlab.types import Batch, Context, Tokens

NEAR = 1e-5  # maximum relative difference of losses
NEAR_GRADIENT = 1e-3  # the same for gradients; a ReLU with an input near 0 may be active in only one of the toolkits
NEAR_LATER = {"float32": 1e-3, "bfloat16": 1e-2}  # the same for the mean losses of the first steps
CHANGED = 3e-3  # minimum relative change of the loss by the first steps
RATES = {"adam": 1e-3, "sgd": 1.0}
SIZE, PRODUCTS = 2048, 20


class Case(NamedTuple):
    model: Any
    optimizer: Optimizer
    rows: int
    source: int
    """The number of tokens of a source; 0 for a language model."""
    target: int
    steps: int
    """The number of steps in a round."""


WORDS: dict[str, Any] = {"reader": Words(8000), "vocabulary": 8000}
CASES = {
    "transformer": Case(
        Transformer(
            **WORDS, encoder_layers=3, decoder_layers=3, dim=256, heads=4, hidden=1024, dropout=0.0, biases=True
        ),
        Optimizer("adam", beta2=0.999, epsilon=1e-8, clip=0.0),
        128,
        24,
        24,
        5,
    ),
    "lstm": Case(RecurrentLM(vocabulary=10_000, dropout=0.0), Optimizer("sgd", clip=5.0), 20, 0, 35, 10),
    "gru_attention": Case(Bahdanau(**WORDS, dropout=0.0), Optimizer("adam", epsilon=1e-8, clip=1.0), 64, 24, 24, 5),
    "tcn": Case(TCNLM(vocabulary=10_000, dim=600, dropout=0.0), Optimizer("sgd", clip=0.35), 16, 0, 80, 5),
}


def main(only: tuple[str, ...] = tuple(CASES), rounds: int = 5) -> None:
    check_names(only, [*CASES])
    keep_freed_memory()
    peak = matrix_rate()
    tell_products()
    jax.config.update("jax_compilation_cache_dir", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # an empty cache
        for name in only:
            compare(f"train/{name}", CASES[name], rounds, peak)


def compare(
    name: str,
    case: Case,
    rounds: int,
    peak: float,
    kinds: Sequence[str] = ("float32", "bfloat16"),
    device: str = "cpu",
) -> None:
    """Prints a row for each dtype of the PyTorch products. `peak` is in operations per second."""
    experiment = experiment_of(case)
    batch = batch_of(case, case.rows, case.source, case.target)
    params = initial_state(experiment, batch).params
    exact = dataclasses.replace(experiment, model=case.model.clone(dtype="float32"))
    before = check_equal(exact, params, [batch, batch_of(case, 3, case.source and 7, 5)], device)
    operations = tell_memory(name, experiment, batch)
    everyone: dict[str, Callable[[], Any]] = {"seqlab": our_steps(experiment, [batch] * case.steps)}
    for kind in kinds:
        for compiled in (False, True):
            who = f"{kind}, compiled" if compiled else kind
            everyone[who] = torch_steps(case, params, batch, kind == "bfloat16", compiled, device)
    first = {}
    for who, work in everyone.items():
        begun = time.perf_counter()
        loss = float(work())
        first[who] = time.perf_counter() - begun, loss
    wanted = first["seqlab"][1]
    assert abs(wanted - before) > CHANGED * before, (wanted, before)
    for who, (_, loss) in first.items():
        assert abs(loss - wanted) < NEAR_LATER["bfloat16" if "bfloat16" in who else "float32"] * wanted, first
    tokens = case.rows * (case.source + case.target)
    rates = in_turns(everyone, tokens * case.steps, rounds)
    notes = "; ".join(f"{who} {statistics.median(found):.0f}" for who, found in rates.items())
    notes += f"; ours {case.model.dtype}"
    peers = {kind: fastest(rates, [kind, f"{kind}, compiled"]) for kind in kinds}
    for kind, peer in peers.items():
        tell(f"{name}/torch-{kind}", rates, "seqlab", peer, "tokens/s", notes, tokens * peak / operations)
    notes = "; ".join(f"{who} {took:.1f} s, loss {loss:.4f}" for who, (took, loss) in first.items())
    peer = peers[kinds[0]]
    row(f"{name}/first_turn", first["seqlab"][0], first[peer][0], "s", f"{case.steps} steps, peer {peer}: {notes}")


def experiment_of(case: Case) -> Experiment:
    task, rate = Translation(label_smoothing=0.0) if case.source else LanguageModeling(), RATES[case.optimizer.name]
    return Experiment(case.model, task, None, optimizer=case.optimizer, schedule=Schedule("constant", rate, 1))


def initial_params(case: Case) -> Any:
    return initial_state(experiment_of(case), batch_of(case, 2, case.source and 2, 2)).params


def batch_of(case: Case, rows: int, source: int, target: int) -> Batch:
    random = np.random.default_rng(0)

    def tokens(length: int) -> Tokens:
        ids = random.integers(4, case.model.vocabulary, (rows, length), np.int32)
        return Tokens(ids, np.ones((rows, length), bool))

    inputs = tokens(source) if source else None
    return Batch(inputs, tokens(target), tokens(target).ids, np.ones((rows, target), np.float32))


def check_equal(experiment: Experiment, params: Any, batches: list[Batch], device: str = "cpu") -> float:
    """Asserts that the losses are equal, and their gradients for the embedding table, to which all layers contribute.
    Returns the loss of the first batch.
    """
    from torch_models import twin

    theirs = twin(experiment.model, params).to(device)

    @jax.jit
    @jax.value_and_grad
    def loss(params: Any, batch: Batch) -> Any:
        total, weight, *_ = experiment.task.loss(experiment.model, params, batch, Context())
        return total / weight

    losses = []
    for batch in batches:
        theirs.zero_grad()
        with in_float32():
            mine, gradient = loss(params, batch)
            other = torch_loss(theirs, *tensors(batch, device))
            other.backward()
        losses.append(float(mine))
        gradient = gradient["params"]
        table = np.asarray((gradient.get("words") or gradient["decoder"]["words"])["table"])
        away = np.linalg.norm(theirs.words.table.weight.grad.cpu().numpy() - table)
        assert abs(float(mine) - other.item()) < NEAR * float(mine), (mine, other)
        assert away < NEAR_GRADIENT * np.linalg.norm(table), away / np.linalg.norm(table)
    return losses[0]


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Disables TF32, to which GPUs otherwise round float32 products."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), jax.default_matmul_precision("highest"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def our_steps(experiment: Experiment, batches: Sequence[Batch]) -> Callable[[], jax.Array]:
    """Returns a function that takes a step on each batch and returns the mean loss of all steps so far."""
    runner = make_runner(Parallel())
    states = [runner.create(lambda: initial_state(experiment, batches[0]))]
    step, fed = runner.compile(training_step(experiment)), [runner.feed(batch) for batch in batches]

    def work() -> jax.Array:
        for batch in fed:
            states.append(step(states.pop(), batch)[0])
        jax.block_until_ready(states)
        return states[0].sums["loss"] / states[0].sums["weight"]

    return work


def tell_memory(name: str, experiment: Experiment, batch: Batch) -> int:
    """Prints the peak memory of the compiled step, compared with the memory that it needs: the state, the batch, and
    the activations for the backward pass, without gradients, which need not exist all at once. Returns the number of
    operations of a step.
    """

    def loss(params: Any) -> Any:
        return experiment.task.loss(experiment.model, params, batch, Context())[0]

    step, state = training_step(experiment), initial_state(experiment, batch)
    size = make_runner(Parallel()).compile(step).lower(state, batch).compile().memory_analysis()
    whole = (
        size.argument_size_in_bytes + size.output_size_in_bytes + size.temp_size_in_bytes - size.alias_size_in_bytes
    )
    left = left_behind(loss, state.params)
    notes = f"ours: a step; peer: state {mebibytes(state):.0f} and activations for the backward pass {left:.0f}"
    row(f"{name}/memory", whole / 2**20, mebibytes((state, batch)) + left, "MiB", notes)
    return count(jax.make_jaxpr(step)(state, batch))[0]


def torch_steps(
    case: Case, params: Any, batch: Batch, half: bool, compiled: bool, device: str = "cpu"
) -> Callable[[], Any]:
    """Returns a function that takes some steps in PyTorch and returns their mean loss."""
    import torch
    from torch_models import twin

    torch.set_num_threads(CORES)
    model, given, o = twin(case.model, params).to(device), tensors(batch, device), case.optimizer
    rate = RATES[o.name]
    if o.name == "adam":
        optimizer = torch.optim.Adam(model.parameters(), rate, (o.beta1, o.beta2), o.epsilon, fused=True)
    else:
        optimizer = torch.optim.SGD(model.parameters(), rate, fused=True)
    loss = torch.compile(functools.partial(torch_loss, model)) if compiled else functools.partial(torch_loss, model)

    def work() -> torch.Tensor:
        total = torch.zeros((), device=device)
        for _ in range(case.steps):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=half):
                value = loss(*given)
            value.backward()
            if o.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip)
            optimizer.step()
            total += value.detach()
        if device == "cuda":
            torch.cuda.synchronize()
        return total / case.steps

    return work


def torch_loss(model: Any, source: Any, prefix: Any, targets: Any) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(model(source, prefix).float().flatten(0, 1), targets.flatten())


def tensors(batch: Batch, device: str = "cpu") -> tuple[Any, Any, Any]:
    import torch

    def ids(given: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(given).long().to(device)

    return None if batch.inputs is None else ids(batch.inputs.ids), ids(batch.prefix.ids), ids(batch.targets)


def matrix_rate(size: int = SIZE, dtype: str = "float32", products: int = 1) -> float:
    """Returns the best rate of plain matrix products, in operations per second. `products` are started at once.

    The matrices are random, because GPUs multiply ones and zeros with less power, and faster.
    """
    product = jax.jit(jnp.matmul)
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)

    def work() -> None:
        jax.block_until_ready([product(x, x) for _ in range(products)])

    work()
    return products * 2 * size**3 / min(seconds(work) for _ in range(PRODUCTS))


def tell_products() -> None:
    """Prints the row of plain matrix products in JAX and PyTorch."""
    import torch

    torch.set_num_threads(CORES)
    x = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    product, ours, theirs = jax.jit(jnp.matmul), jnp.asarray(x), torch.from_numpy(x)
    everyone = {"JAX": lambda: jax.block_until_ready(product(ours, ours)), "PyTorch": lambda: theirs @ theirs}
    in_turns(everyone, 1, 2)
    rates = in_turns(everyone, 2 * SIZE**3 / 1e9, PRODUCTS)
    notes = f"a float32 product of {SIZE:,} x {SIZE:,}, median of {PRODUCTS}; limits use the best of {PRODUCTS}"
    tell("machine/matrix_rate", rates, "JAX", "PyTorch", "GFLOP/s", notes)


if __name__ == "__main__":
    with_allocator()
    tyro.cli(main)
