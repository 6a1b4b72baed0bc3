"""What every part must obey, as functions: each raises `LawBroken` with what it saw.

`model_laws` take a `Subject`, a small model with parameters and ragged inputs. `task_laws` take a task,
`STEP_LAWS` nothing; `RUN_LAWS` take an empty folder. What "equal" means is `same` (to the bit) or `close`
(1e-5 relative to the largest entry, float32).
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqlab import catalogue
from seqlab.batching import Plan, Streams
from seqlab.checkpoint import checkpoint_steps, read_manifest, restore
from seqlab.config import Batching, Experiment, Parallel, Schedule, Text, Validation
from seqlab.datasets.cldr_phrases import CldrPhrases
from seqlab.parallel import fill_rows, fit_rows, make_runner
from seqlab.search.generate import Result, generate
from seqlab.search.requests import Request
from seqlab.search.rules import Rules
from seqlab.search.searcher import Weights
from seqlab.step import TrainState, make_step
from seqlab.text import Corpus, Labels, Numbers, Symbols, Tokenizer, Tokenizers, train_tokenizer
from seqlab.train import init_params, train
from seqlab.types import Batch, Params, Series, Tokens

LENGTHS = (8, 1, 4, 3, 2)  # of the rows in a subject's inputs, as a rule
SENTENCES = ((0, 0, 1, 3, 3, 3, 3, 3), (0,), (0, 1, 1, 2), (0, 2, 2), (1, 1))  # of their tokens; some are empty
HYPOTHESES = 3  # of a sentence, where a law takes single steps
LONG = 64  # the longest row of a certificate
ALPHAS = (0.0, 0.6, 1.5)
EOS = Tokenizer.eos


class LawBroken(AssertionError):
    """A law does not hold."""


def require(holds: Any, message: str) -> None:
    if not bool(holds):
        raise LawBroken(message)


def close(a: Any, b: Any, what: str) -> float:
    """Their largest difference, relative to the largest entry of `b`."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    require(a.shape == b.shape, f"{what}: shapes {a.shape} and {b.shape}")
    require(np.isfinite(a).all() and np.isfinite(b).all(), f"{what}: not finite")
    gap, scale = np.abs(a - b).max(initial=0.0), max(np.abs(b).max(initial=0.0), 1e-30)
    require(gap <= 1e-5 * scale, f"{what}: differ by {gap / scale:.2g}, relative to the largest entry")
    return float(gap / scale)


def same(a: Any, b: Any, what: str) -> None:
    require(np.array_equal(np.asarray(a), np.asarray(b)), f"{what}: not the same to the bit")


class Subject(NamedTuple):
    """A model under test. `inputs`, `prefix`, `targets` and `weights` are NumPy arrays: something to read and learn.

    `forward(params, inputs, prefix)` gives the logits, [B T V] of a generator, [B S C] of a tagger, [B C] of a
    classifier, or a regressor's numbers [B], without dropout. `gradient(params, inputs, prefix, targets, weights)` is
    that of the sum of the losses. Both are jitted. Only a generator has a prefix.
    """

    model: Any
    params: Params
    inputs: Any
    prefix: Any
    targets: np.ndarray
    weights: np.ndarray
    forward: Callable[..., jax.Array]
    gradient: Callable[..., Params]


def make_subject(
    model: Any, seed: int = 0, *, source: int = max(LENGTHS), target: int = max(LENGTHS), features: int = 2
) -> Subject:
    """A subject with ragged rows, no two alike, and parameters drawn with `seed`: the longest source has `source`
    positions, the longest prefix `target`, and a position of a regressor `features` numbers.
    """
    random = np.random.default_rng(seed)

    def ragged(longest: int) -> np.ndarray:
        return np.arange(longest) < np.array([longest, *LENGTHS[1:]])[:, None]

    def tokens(vocabulary: int, mask: np.ndarray) -> Tokens:
        ids = np.where(mask, random.integers(min(3, vocabulary - 2), vocabulary, mask.shape), 0)
        return Tokens(ids.astype(np.int32), mask)

    kind, sources, prefix = catalogue.kind_of(model), getattr(model, "source_vocabulary", 0), None
    inputs: Any = None
    mask = ragged(source)
    if sources:
        inputs = tokens(sources, mask)
        sentences = np.zeros(mask.shape, np.int32)
        beyond = range(SENTENCES[0][-1] + 1, SENTENCES[0][-1] + 1 + source - len(SENTENCES[0]))  # of one word each
        sentences[mask] = [*SENTENCES[0], *beyond, *(n for row in SENTENCES[1:] for n in row)]
        inputs = inputs.replace(sentences=sentences)
    if kind == "generator":
        prefix = tokens(model.vocabulary, ragged(target)[::-1])
        targets = (prefix.ids * 3 + np.arange(len(LENGTHS))[:, None] + 1) % model.vocabulary
        weights = prefix.mask
    elif kind == "tagger":
        targets = np.cumsum(inputs.ids, axis=1) % model.classes
        weights = inputs.mask
    else:
        targets, weights = np.arange(len(LENGTHS)), np.ones(len(LENGTHS))
        targets = np.float32(targets / 2) if kind == "regressor" else targets % model.classes
    if kind == "regressor":
        inputs = Series(np.float32(random.normal(size=(*mask.shape, features))), mask)
    batch = Batch(inputs, prefix, targets if kind == "regressor" else np.int32(targets), np.float32(weights))
    params = init_params(model, seed, batch)
    return Subject(model, params, inputs, prefix, batch.targets, batch.weights, *passes(model))


@functools.lru_cache(maxsize=64)
def passes(model: Any) -> tuple[Callable[..., jax.Array], Callable[..., Params]]:
    """Returns `forward` and `gradient` of a model. Subjects of equal models share the compiled functions."""
    return jax.jit(functools.partial(logits_of, model)), jax.jit(jax.grad(functools.partial(loss_of, model)))


def logits_of(
    model: Any, params: Params, inputs: Any, prefix: Any, key: Any = None, *, train: bool = False
) -> jax.Array:
    """Logits of a forced pass, or what another model than a generator gives; `key` drives dropout."""
    rngs = None if key is None else {"dropout": key}
    if prefix is None:
        return model.apply(params, inputs, train=train, rngs=rngs)
    return model.apply(params, rngs=rngs, method=lambda m: m.project(m.features(inputs, prefix, train=train)[0]))


def outputs(s: Subject, inputs: Any, prefix: Any) -> np.ndarray:
    """What `forward` gives, where there is an output for each position: of the real ones."""
    found = np.asarray(s.forward(s.params, inputs, prefix))
    return found[np.asarray((inputs if prefix is None else prefix).mask)] if found.ndim == 3 else found


def loss_of(model: Any, params: Params, inputs: Any, prefix: Any, targets: Any, weights: Any) -> jax.Array:
    """The sum of the losses."""
    logits = logits_of(model, params, inputs, prefix)
    if catalogue.kind_of(model) == "regressor":
        return ((logits - targets) ** 2).sum()
    return (optax.softmax_cross_entropy_with_integer_labels(logits, targets) * weights).sum()


def forced(s: Subject, params: Params, rows: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the logits [N T V] of N prefixes, given the inputs of the subject's `rows` [N].

    Uses batches of the subject's shape where the prefixes fit, so that no new program is compiled.
    """
    count, length = ids.shape
    batch, width = s.prefix.ids.shape
    padding = ((0, 0), (0, max(width - length, 0)))
    padded = Tokens(np.pad(np.int32(ids), padding), np.pad(mask, padding))
    chosen = np.arange(-(-count // batch) * batch) % count
    logits = [
        np.asarray(s.forward(params, rows_of(s.inputs, rows[indices]), rows_of(padded, indices)))
        for indices in np.split(chosen, len(chosen) // batch)
    ]
    return np.concatenate(logits)[:count, :length]


def rows_of(tree: Any, rows: Any) -> Any:
    return jax.tree.map(lambda x: x[rows], tree)


# Models


def pads_are_inert(s: Subject) -> None:
    """Garbage in the pads changes nothing, to the bit."""

    def garbage(tokens: Any) -> Any:
        mask = tokens.mask
        return jax.tree.map(
            lambda x: np.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, x.dtype.type(5)), tokens
        ).replace(mask=mask)

    dirty = (tokens and garbage(tokens) for tokens in (s.inputs, s.prefix))
    same(outputs(s, s.inputs, s.prefix), outputs(s, *dirty), "logits with garbage in the pads")


def longer_padding_changes_nothing(s: Subject) -> None:
    """Three more pads on every side change no logit."""

    def longer(tokens: Any) -> Any:
        return jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 3), *[(0, 0)] * (x.ndim - 2))), tokens)

    found = outputs(s, longer(s.inputs), longer(s.prefix))
    close(found, outputs(s, s.inputs, s.prefix), "logits with longer padding")


def rows_are_independent(s: Subject) -> None:
    """Permuted rows give permuted logits, and a row alone what it gives among others."""
    logits = np.asarray(s.forward(s.params, s.inputs, s.prefix))
    order = np.arange(len(LENGTHS))[::-1]  # and not all by so many places, which a neighbour's row would follow
    close(s.forward(s.params, rows_of(s.inputs, order), rows_of(s.prefix, order)), logits[order], "permuted rows")
    one = slice(2, 3)
    close(s.forward(s.params, rows_of(s.inputs, one), rows_of(s.prefix, one)), logits[one], "a row alone")


def empty_rows_are_finite(s: Subject) -> None:
    """A row without a single real token gives finite logits and gradients, and changes no other row."""
    mask = np.ones((len(LENGTHS), 1), bool)
    mask[0] = False

    def emptied(tokens: Any) -> Any:
        return tokens and tokens.replace(mask=tokens.mask & mask)

    inputs, prefix = emptied(s.inputs), emptied(s.prefix)
    logits = np.asarray(s.forward(s.params, inputs, prefix))
    require(np.isfinite(logits).all(), "an empty row gives logits that are not finite")
    close(logits[1:], np.asarray(s.forward(s.params, s.inputs, s.prefix))[1:], "rows beside an empty one")
    weights = s.weights * mask.reshape(-1, *[1] * (s.weights.ndim - 1)).astype(np.float32)
    gradients = s.gradient(s.params, inputs, prefix, s.targets, weights)
    finite = [np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(gradients)]
    require(all(finite), "an empty row gives gradients that are not finite")


def future_is_unseen(s: Subject) -> None:
    """A changed id leaves all logits before it as they were, to the bit."""
    before = np.asarray(s.forward(s.params, s.inputs, s.prefix))
    written, most = (s.inputs, s.model.source_vocabulary) if s.prefix is None else (s.prefix, s.model.vocabulary)
    for t in range(1, written.ids.shape[1]):
        ids = written.ids.copy()
        ids[:, t:] = (ids[:, t:] + 1) % most
        changed = written.replace(ids=ids)
        after = s.forward(s.params, *((changed, None) if s.prefix is None else (s.inputs, changed)))
        same(before[:, :t], np.asarray(after)[:, :t], f"logits before position {t} when ids from there on change")


def past_matters(s: Subject) -> None:
    """A changed id changes later logits, as far back as the model's `receptive_field` (None: all), and no farther."""
    length = s.prefix.ids.shape[1]
    reach = getattr(s.model, "receptive_field", None) or length
    rows = np.full(length, len(LENGTHS) - 1)  # the one with the longest prefix, once for each distance
    distance = np.arange(length)
    ids = s.prefix.ids[rows]
    ids[distance, length - 1 - distance] += distance > 0
    moved = np.zeros(length)
    for factor in (1, 2, 3):  # a ReLU may hide a change
        params = jax.tree.map(lambda x, n=factor: np.asarray(x) * np.float32(n), s.params)
        logits = forced(s, params, rows, ids % s.model.vocabulary, s.prefix.mask[rows])[:, -1]
        moved = np.maximum(moved, abs(logits - logits[0]).max(-1) / abs(logits[0]).max())
    for n in range(1, length):
        if n < reach:
            require(moved[n] > 1e-6, f"an id {n} positions back changes nothing")
        else:
            require(moved[n] <= 1e-6, f"an id {n} positions back, out of the receptive field, changes something")


def input_matters(s: Subject) -> None:
    """Another input gives another answer."""
    if isinstance(s.inputs, Series):
        changed: Any = dataclasses.replace(s.inputs, values=s.inputs.values + 1.0)
    else:
        changed = s.inputs.replace(ids=(s.inputs.ids + 1) % s.model.source_vocabulary)
    before, after = outputs(s, s.inputs, None), outputs(s, changed, None)
    moved = abs(after - before).reshape(len(before), -1).max(-1)
    require((moved > 1e-6 * abs(before).max()).all(), "another input changes nothing")


def jit_agrees_with_eager(s: Subject) -> None:
    """Compiled and op by op, the logits agree."""
    inputs, prefix = jax.tree.map(jnp.asarray, (s.inputs, s.prefix))
    eager = logits_of(s.model, s.params, inputs, prefix)
    close(s.forward(s.params, s.inputs, s.prefix), eager, "jit and eager")


def dropout_acts_only_in_training(s: Subject) -> None:
    """In evaluation a dropout key changes nothing; in training two keys give two results."""
    model = s.model.clone(dropout=0.5)

    @jax.jit
    def run(params: Params, inputs: Any, prefix: Any, key: Any) -> Any:
        return [logits_of(model, params, inputs, prefix, key, train=train) for train in (False, True)]

    (evaluated, trained), (evaluated_again, trained_again) = (
        run(s.params, s.inputs, s.prefix, jax.random.key(n)) for n in (1, 2)
    )
    same(evaluated, evaluated_again, "evaluation with two dropout keys")
    moved = np.abs(np.asarray(trained) - np.asarray(trained_again)).max()
    require(moved > 1e-3, "training with two dropout keys gives the same")


def gradients_reach_every_parameter(s: Subject) -> None:
    """The largest entry of each leaf's gradient is above 1e-6 of the global norm.

    A model's file names in ZERO_GRADIENTS the leaves whose gradient is zero by construction.
    """
    gradients = jax.tree.map(np.asarray, s.gradient(s.params, s.inputs, s.prefix, s.targets, s.weights))
    norm = np.sqrt(sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(gradients)))
    for path, gradient in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        name = jax.tree_util.keystr(path)
        if not any(zero in name for zero in getattr(catalogue.home(s.model), "ZERO_GRADIENTS", ())):
            require(np.abs(gradient).max() > 1e-6 * norm, f"no gradient reaches {name}")


class Stepper(NamedTuple):
    """`start(params, inputs, prompt)`, `step(params, memory, state, token, t)`, `reorder(state, parents)`, jitted."""

    start: Callable[..., Any]
    step: Callable[..., Any]
    reorder: Callable[..., Any]


@functools.lru_cache(maxsize=64)
def make_stepper(model: Any, capacity: int, hypotheses: int) -> Stepper:
    def start(params: Params, inputs: Tokens | None, prompt: Tokens) -> Any:
        return model.apply(params, inputs, prompt, capacity, hypotheses, method=type(model).start)

    def step(params: Params, memory: Any, state: Any, token: jax.Array, t: jax.Array) -> Any:
        return model.apply(params, memory, state, token, t, method=type(model).step)

    return Stepper(jax.jit(start), jax.jit(step), jax.jit(model.reorder))


def step_agrees_with_features(s: Subject) -> float:
    """Step by step the logits are those of the forced pass, after prompts of one and of unequal lengths."""
    total, largest = s.prefix.ids.shape[1], 0.0
    logits, lengths = np.asarray(s.forward(s.params, s.inputs, s.prefix)), s.prefix.mask.sum(1)
    stepper = make_stepper(s.model, total, HYPOTHESES)
    for prompt_length in (1, 3):
        # A row's prompt is its first tokens, as many as it has; right-aligned, pads to the left.
        held = np.minimum(lengths, prompt_length)
        at = np.arange(prompt_length) - (prompt_length - held[:, None])
        ids = np.take_along_axis(s.prefix.ids, np.maximum(at, 0), axis=1)
        memory, state = stepper.start(s.params, s.inputs, Tokens(ids, at >= 0))
        for t in range(prompt_length - 1, total):
            own = np.minimum(t - prompt_length + held, total - 1)  # the position in the row itself
            token = np.take_along_axis(s.prefix.ids, own[:, None], axis=1)
            found, state = stepper.step(s.params, memory, state, np.repeat(token, HYPOTHESES, 1), np.int32(t))
            real = own < lengths
            for k in range(HYPOTHESES):
                gap = close(
                    np.asarray(found)[real, k],
                    logits[np.flatnonzero(real), own[real]],
                    f"step {t} after a prompt of {prompt_length} against the forced pass",
                )
                largest = max(largest, gap)
    return largest


def reorder_follows_parents(s: Subject) -> None:
    """After a reorder the next logits are those of the permuted histories, computed anew."""
    steps, batch = 4, len(LENGTHS)
    stepper = make_stepper(s.model, s.prefix.ids.shape[1], HYPOTHESES)
    random = np.random.default_rng(0)
    memory, state = stepper.start(s.params, s.inputs, first_prompt(batch))
    histories = np.ones((batch, HYPOTHESES, steps), np.int32)
    histories[:, :, 1:] = random.integers(3, s.model.vocabulary, (batch, HYPOTHESES, steps - 1))
    every = np.repeat(np.arange(batch), HYPOTHESES)
    for t in range(steps):
        found, state = stepper.step(s.params, memory, state, histories[:, :, t], np.int32(t))
        prefixes = histories.reshape(-1, steps)
        expected = forced(s, s.params, every, prefixes, np.ones(prefixes.shape, bool))[:, t]
        close(np.asarray(found).reshape(expected.shape), expected, f"logits after {t} reorders")
        parents = random.integers(0, HYPOTHESES, (batch, HYPOTHESES)).astype(np.int32)
        state = stepper.reorder(state, parents)
        past = np.take_along_axis(histories, parents[..., None], axis=1)
        histories[:, :, : t + 1] = past[:, :, : t + 1]


def segments_are_apart(s: Subject) -> None:
    """Texts packed into one row give the logits that each gives in a row of its own."""
    order = np.argsort(LENGTHS)
    texts = [s.prefix.ids[i][s.prefix.mask[i]] for i in order]
    ids = np.concatenate([*texts, [0, 0]]).astype(np.int32)[None]
    marks = np.concatenate([*(np.full(len(text), n + 1) for n, text in enumerate(texts)), [0, 0]]).astype(np.int32)[
        None
    ]
    row = Tokens(ids, marks > 0, segments=marks)
    close(outputs(s, None, row), outputs(s, None, rows_of(s.prefix, order)), "logits of packed texts")


def carry_continues_the_stream(s: Subject) -> None:
    """Two stretches, the second with the carry of the first, give the features of one long stretch."""
    whole = Tokens(s.prefix.ids, np.ones_like(s.prefix.mask))
    expected, _ = features_of(s.model, s.params, whole, None)
    cut = whole.ids.shape[1] // 2
    first, carry = features_of(s.model, s.params, columns_of(whole, slice(0, cut)), None)
    second, _ = features_of(s.model, s.params, columns_of(whole, slice(cut, None)), carry)
    close(np.concatenate([first, second], axis=1), expected, "features of two stretches")


@functools.partial(jax.jit, static_argnums=0)
def features_of(model: Any, params: Params, prefix: Tokens, carry: Any) -> Any:
    """([B T D], carry) of a language model."""
    return model.apply(params, None, prefix, carry, train=False, method=type(model).features)


def columns_of(tokens: Tokens, columns: slice) -> Tokens:
    return jax.tree.map(lambda x: x[:, columns], tokens)


def first_prompt(batch: int) -> Tokens:
    """BOS for each row."""
    return Tokens(np.ones((batch, 1), np.int32), np.ones((batch, 1), bool))


def four_examples_can_be_memorized(s: Subject) -> None:
    """A hundred steps of Adam through `make_step` bring four rows' loss below a tenth of what it was."""
    batch = rows_of(Batch(s.inputs, s.prefix, s.targets, s.weights), slice(0, 4))
    model = s.model.clone(dropout=0.0)
    tasks = {"classifier": "classification", "tagger": "tagging", "regressor": "regression"}
    task = catalogue.part("tasks", tasks.get(catalogue.kind_of(model), "language_modeling"))()
    loss = functools.partial(task.loss, model)
    optimizer = optax.adam(3e-2)
    step = jax.jit(make_step(loss, optimizer, 0))
    losses = [0.0]
    sums = jax.eval_shape(loss, s.params, batch, None, jax.random.key(0))[2]
    state = first_state(s.params, optimizer, tuple(sums))
    for _ in range(100):
        state, _ = step(state, batch)
        losses.append(float(state.sums["loss"]))
    first, last = losses[1] - losses[0], losses[-1] - losses[-2]
    require(last < 0.1 * first, f"in 100 steps the loss of four rows went from {first:.3g} to {last:.3g}")


def first_state(params: Params, optimizer: optax.GradientTransformation, sums: tuple[str, ...]) -> TrainState:
    """Step 0 of an optimizer whose state begins with zeros."""
    names = ("loss", "weight", *sums, "gradient_norm", "steps")
    moments = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(optimizer.init, params))
    return TrainState(np.int32(0), params, moments, None, {name: np.float32(0) for name in names})


# Search, on any generator


def requests_of(s: Subject, limit: int, shortest: int = 1) -> list[Request]:
    """A request for each row of the subject: its source, or the first tokens of its prefix as a prompt, which has
    `shortest` to 3 tokens.
    """
    if s.inputs is not None:
        sources = zip(s.inputs.ids.tolist(), LENGTHS, SENTENCES, strict=True)
        return [Request(ids[:n], [1], limit, sentences) for ids, n, sentences in sources]
    prefixes = enumerate(s.prefix.ids.tolist())
    return [Request(None, [1, *ids[: shortest - 1 + i % (4 - shortest)]], limit) for i, ids in prefixes]


def search(s: Subject, requests: list[Request], **settings: Any) -> list[list[Result]]:
    """Calls `generate` on one device. How rows are split over devices does not depend on the model."""
    return generate(s.model, s.params, requests, **{"eos": EOS, "devices": jax.local_devices()[:1], **settings})


def forced_logits(s: Subject, row: int, prefixes: list[list[int]]) -> np.ndarray:
    """Logits [N T V] after each of some prefixes of a row of the subject."""
    width = max(map(len, prefixes))
    mask = np.arange(width) < np.array([len(prefix) for prefix in prefixes])[:, None]
    ids = np.array([prefix + [0] * (width - len(prefix)) for prefix in prefixes])
    return forced(s, s.params, np.full(len(ids), row), ids, mask)


def forced_scores(
    s: Subject, row: int, prompt: Any, answers: list[list[int]], alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores, normalized by ((5 + n) / 6) ** alpha, and log-probabilities of answers, by forced passes."""
    logits = np.float64(forced_logits(s, row, [[*prompt, *answer[:-1]] for answer in answers]))
    log_probs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    log_probs -= logits.max(-1, keepdims=True)
    start = len(prompt) - 1
    sums = np.array([sum(log_probs[i, start + j, y] for j, y in enumerate(a)) for i, a in enumerate(answers)])
    return sums / ((5 + np.array([len(answer) for answer in answers])) / 6) ** alpha, sums


def returned_scores_are_the_models(s: Subject) -> None:
    """Scores of a beam of 3 are the forced log-probabilities of its tokens, of which the last is the only EOS,
    divided by the length penalty once.
    """
    requests = requests_of(s, 5)
    for alpha in ALPHAS:
        found = search(s, requests, beam=3, weights=Weights(alpha), wanted=3)
        for row, results in enumerate(found):
            require(all(r.ids.index(EOS) == len(r.ids) - 1 for r in results), "a text goes on after its end")
            scores, sums = forced_scores(s, row, requests[row].prompt, [r.ids for r in results], alpha)
            close([r.score for r in results], scores, f"scores at alpha {alpha}")
            close([r.log_prob for r in results], sums, f"log-probabilities at alpha {alpha}")


def a_beam_that_holds_everything_is_exact(s: Subject) -> None:
    """The best of all answers of up to three tokens, by enumeration, is what a beam that holds them all returns."""
    others = [token for token in range(s.model.vocabulary) if token != EOS]
    answers = [[*head, EOS] for n in range(3) for head in itertools.product(others, repeat=n)]
    requests = requests_of(s, 3, shortest=2)  # prompts of one token are another shape to compile
    for alpha in ALPHAS:
        beam = len(others) * s.model.vocabulary  # room for every continuation of one token
        found = search(s, requests, beam=beam, weights=Weights(alpha))
        for row, (best,) in enumerate(found):
            scores, _ = forced_scores(s, row, requests[row].prompt, answers, alpha)
            close(best.score, scores.max(), f"the best score at alpha {alpha}")
            require(scores[answers.index(best.ids)] > scores.max() - 1e-4, "the returned answer is not a best one")


def greedy_is_a_beam_of_one(s: Subject) -> None:
    """Greedy search takes the best token each time; a beam of 1 that stops at its first end writes the same."""
    limit = 4  # one block of steps: longer texts would compile more shapes
    firsts = [[token] for token in range(3, s.model.vocabulary)]
    requests = [one._replace(prompt=[*one.prompt, *more]) for one in requests_of(s, limit) for more in firsts]
    rules = {"greedy": None, "a beam of 1": Rules(stop="first")}
    found = {name: search(s, requests, beam=1, rules=rule) for name, rule in rules.items()}
    for index, (_, prompt, *_) in enumerate(requests):
        row = index // len(firsts)
        answer: list[int] = []
        while len(answer) < limit and EOS not in answer:
            logits = forced_logits(s, row, [[*prompt, *answer]])[0, len(prompt) + len(answer) - 1]
            answer.append(EOS if len(answer) + 1 == limit else int(logits.argmax()))
        for name, results in found.items():
            written = results[index][0].ids
            require(written == answer, f"search ({name}) writes {written}, not {answer}")


# Tasks


def tiny_corpus(task: Any) -> tuple[Corpus, Tokenizers, list[dict[str, str]]]:
    made = {
        ("source", "text"): lambda n: f"{'a b ' * n}c\nb",
        ("target", "text"): lambda n: f"{'x ' * (n % 3)}yz {n}",
        ("label", "class"): lambda n: "xyz"[n % 3],
        ("source", "symbols"): lambda n: " ".join("abc"[(n + i) % 3] for i in range(n)),
        ("label", "symbols"): lambda n: " ".join("xyz"[(n * i) % 3] for i in range(n)),
        ("source", "numbers"): lambda n: " ".join(f"{n}.{i}" for i in range(2 * n)),
        ("target", "numbers"): lambda n: f"-{n}.5",
    }
    examples = [{name: made[name, kind](n) for name, kind in task.columns.items()} for n in range(1, 12)]
    kinds = {"text": tiny_tokenizer(), "class": Labels(("x", "y", "z")), "numbers": Numbers()}
    kinds["symbols"] = Symbols(("a", "b", "c", "x", "y", "z"))
    tokenizers = {name: kinds[kind] for name, kind in task.columns.items()}
    ids: dict[str, np.ndarray] = {}
    offsets: dict[str, np.ndarray] = {}
    for column, tokenizer in tokenizers.items():
        rows = tokenizer.encode([example[column] for example in examples])
        ids[column] = np.concatenate(rows).astype(np.int32)
        offsets[column] = np.cumsum([0, *map(len, rows)])
    return Corpus(ids, offsets), tokenizers, examples


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    return train_tokenizer(["a b c xyz yz 0 1 2 3 4 5 6 7 8 9"] * 20, Text("char", 300))


def tiny_plan(task: Any, corpus: Corpus) -> Plan:
    return task.plan(corpus, Batching(tokens=140, buckets=3, max_length=60, max_ratio=99.0))


def targets_are_the_next_tokens(task: Any) -> None:
    """A batch's targets are the texts, and its prefix is what stands before each: BOS first, and EOS is the last
    target. In a stream the targets are the whole text but its first token.
    """
    corpus, tokenizers, examples = tiny_corpus(task)
    tokenizer = tokenizers["target"]
    texts = [example["target"] for example in examples]
    found: list[str] = []
    streams: dict[int, list[int]] = {}
    plan = tiny_plan(task, corpus)
    for rows in plan.batches(0, None):
        batch = task.collate(corpus, rows, tokenizers)
        require(len(batch.targets) == rows.rows, "a batch has not the rows it should")
        same(batch.weights > 0, batch.prefix.mask, "where there is weight, and the prefix's mask")
        marks = batch.prefix.mask if batch.prefix.segments is None else batch.prefix.segments
        for i, mark in ((i, mark) for i, row in enumerate(marks) for mark in np.unique(row[row > 0])):
            target, prefix = batch.targets[i][marks[i] == mark], batch.prefix.ids[i][marks[i] == mark]
            same(prefix[1:], target[:-1], "prefix and shifted targets")
            if isinstance(plan, Streams):
                streams.setdefault(i, []).extend(target.tolist())
            else:
                require(prefix[0] == tokenizer.bos, "a prefix does not begin with BOS")
                require(target[-1] == tokenizer.eos, "targets do not end with EOS")
                found.append(tokenizer.decode(target.tolist()))
    if streams:
        whole = [token for row in sorted(streams) for token in streams[row]]
        same(whole, tokenizer.encode(["\n".join(texts)])[0][1:], "the targets of a stream, and the text")
    else:
        require(sorted(found) == sorted(texts), "the targets are not the texts")


def targets_are_the_labels(task: Any) -> None:
    """A batch's targets are its documents' classes; a document is whole, and its sentences are told apart."""
    corpus, tokenizers, examples = tiny_corpus(task)
    for rows in tiny_plan(task, corpus).batches(0, None):
        batch = task.collate(corpus, rows, tokenizers)
        require(batch.weights.sum() == len(rows.indices), "a filled-up row has weight")
        for i, index in enumerate(rows.indices):
            real, example = batch.inputs.mask[i], examples[index]
            sentences, ids = batch.inputs.sentences[i][real], batch.inputs.ids[i][real]
            ends = np.flatnonzero(ids == tokenizers["source"].newline)
            same(np.flatnonzero(np.diff(sentences)), ends, "where sentences end, and the newlines")
            parts = [tokenizers["source"].decode(ids[sentences == n].tolist()) for n in range(sentences[-1] + 1)]
            require(parts == example["source"].split("\n"), "the sentences are not those of the document")
            require(
                tokenizers["label"].decode([int(batch.targets[i])]) == example["label"], "the class is another one"
            )


def targets_are_the_tags(task: Any) -> None:
    """A batch's targets are the labels, one for each symbol, and its inputs the symbols."""
    corpus, tokenizers, examples = tiny_corpus(task)
    for rows in tiny_plan(task, corpus).batches(0, None):
        batch = task.collate(corpus, rows, tokenizers)
        same(batch.weights > 0, batch.inputs.mask, "where there is weight, and the mask of the inputs")
        for i, index in enumerate(rows.indices):
            for name, ids in (("source", batch.inputs.ids), ("label", batch.targets)):
                told = tokenizers[name].decode(ids[i][batch.inputs.mask[i]].tolist())
                require(told == examples[index][name], f"a {name} is another one")


def targets_are_the_numbers(task: Any) -> None:
    """A batch's targets are the target's numbers, and its inputs the source's, position by position."""
    corpus, tokenizers, examples = tiny_corpus(task)
    for rows in tiny_plan(task, corpus).batches(0, None):
        batch = task.collate(corpus, rows, tokenizers)
        require(batch.weights.sum() == len(rows.indices), "a filled-up row has weight")
        for i, index in enumerate(rows.indices):
            source, target = (np.array(examples[index][name].split(), np.float32) for name in ("source", "target"))
            same(batch.inputs.values[i][batch.inputs.mask[i]].ravel(), source, "the numbers of a source")
            same(batch.targets[i], target[0], "the number of a target")


def decoding_reads_what_training_reads(task: Any) -> None:
    """A text's request has the source, the sentences and the first prompt token that it has in a training batch."""
    corpus, tokenizers, examples = tiny_corpus(task)
    for rows in tiny_plan(task, corpus).batches(0, None):
        batch = task.collate(corpus, rows, tokenizers)
        for i, index in enumerate(rows.indices):
            (request,) = task.requests([examples[index]["source"]], tokenizers, 0)
            real = batch.inputs.mask[i]
            same(request.source, batch.inputs.ids[i][real], "the source's ids")
            same(request.sentences, batch.inputs.sentences[i][real], "the sentences of the source's tokens")
            same(request.prompt, batch.prefix.ids[i, :1], "the prompt")


def every_example_comes_once_an_epoch(task: Any) -> None:
    """An epoch's batches hold each example once, or each token of a stream, in an order that hinges on seed and
    epoch alone.
    """
    corpus, tokenizers, _ = tiny_corpus(task)
    plan = tiny_plan(task, corpus)
    orders = [[rows.indices.tolist() for rows in plan.batches(7, epoch)] for epoch in (0, 0, 1)]
    require(orders[0] == orders[1], "the same epoch twice has two orders")
    require(orders[0] != orders[2], "two epochs have one order")
    if isinstance(plan, Streams):
        for epoch in (0, 1, None):
            weights = [task.collate(corpus, rows, tokenizers).weights.sum() for rows in plan.batches(7, epoch)]
            require(sum(weights) == plan.tokens, f"{sum(weights)} of {plan.tokens} tokens come in an epoch")
        return
    for order in (*orders, [rows.indices.tolist() for rows in plan.batches(7, None)]):
        seen = sorted(i for indices in order for i in indices)
        require(seen == list(range(len(corpus))), f"an epoch holds examples {seen}")


def rows_come_apart(task: Any) -> None:
    """Some rows of a batch, collated alone, are those of the whole batch; rows behind the last are filled up."""
    corpus, tokenizers, _ = tiny_corpus(task)
    for rows in tiny_plan(task, corpus).batches(7, 0):
        batch = task.collate(corpus, rows, tokenizers)
        whole = jax.tree.leaves(fill_rows(batch, 8))
        for begin in range(3):
            which = np.arange(begin, len(whole[0]), 3)
            part = task.collate(corpus, rows.only(which), tokenizers)
            for ours, theirs in zip(jax.tree.leaves(part), whole, strict=True):
                same(fit_rows(ours, len(which)), theirs[which], "rows of a batch, collated alone")


def filled_rows_weigh_nothing(task: Any) -> None:
    """Rows added to make a multiple of the devices change no sum of the loss."""
    corpus, tokenizers, _ = tiny_corpus(task)
    sized = {column for column, tokenizer in tokenizers.items() if not isinstance(tokenizer, Numbers)}
    wanted = {name for name, column in catalogue.SIZES.items() if column in sized}
    model = next(m for m in models_for(task) if {name for name in catalogue.SIZES if hasattr(m, name)} == wanted)
    sizes = {name: len(tokenizers[column]) for name, column in catalogue.SIZES.items() if name in wanted}
    model = dataclasses.replace(model, **sizes)
    batch = task.collate(corpus, tiny_plan(task, corpus).batches(0, None)[0], tokenizers)
    params = init_params(model, 0, batch)
    sums = jax.jit(lambda params, batch: jax.tree.leaves(task.loss(model, params, batch, None, None)[:3]))
    close(sums(params, fill_rows(batch, 8)), sums(params, batch), "sums of the loss with filled-up rows")


def models_for(task: Any) -> list[Any]:
    modules = [catalogue.module("models", name) for name in catalogue.names("models")]
    return [module.TINY for module in modules if module.KIND == task.KIND]


# Steps and runs


SPLITS = (  # how a step may be split: by jit or pmap, with parameters shared, and in parts
    (Parallel(), 1),
    (Parallel(fsdp=2, tensor=2), 1),
    (Parallel(fsdp=4), 3),
    (Parallel(), 2),
    (Parallel("pmap"), 1),
    (Parallel("pmap"), 3),
)


def devices_agree() -> None:
    """One device and all devices, however a step is split, end with the same parameters after SGD on rows that do not
    divide by them.

    By jit with dropout, whose mask is that of the whole batch; by pmap and in parts without.
    """
    # Large enough to be split. Swish, because rounding can flip the gradient of a ReLU at zero.
    model = catalogue.module("models", "transformer").TINY
    model = model.clone(encoder_layers=1, decoder_layers=1, dim=32, heads=4, hidden=128, activation="swish")
    subject = make_subject(model)
    batch = Batch(subject.inputs, subject.prefix, subject.targets, subject.weights)
    batch = jax.tree.map(np.asarray, batch)
    optimizer = optax.sgd(0.1)

    def trained(run: Callable[..., Any], place: Any, feed: Any, fetch: Any) -> Any:
        first = dataclasses.replace(first_state(subject.params, optimizer, ("nll",)), average=subject.params)
        state = place(jax.tree.map(jnp.array, first))
        for _ in range(10):
            state, _ = run(state, feed(batch))
        whole = fetch(state)
        return jax.tree.leaves(jax.tree.map(np.asarray, (whole.params, whole.sums, whole.average)))

    task, decay = catalogue.part("tasks", "translation")(), 0.7
    alone = {}
    for parallel, parts in SPLITS:
        dropout = 0.3 if (parallel.name, parts) == ("jit", 1) else 0.0
        loss = functools.partial(task.loss, model.clone(dropout=dropout))
        if dropout not in alone:
            step = jax.jit(make_step(loss, optimizer, 0, average=decay))
            alone[dropout] = trained(step, lambda x: x, lambda x: x, lambda x: x)
        runner = make_runner(parallel, parts)
        step = runner.compile(make_step(loss, optimizer, 0, runner.axis, accumulate=parts, average=decay))
        found = trained(step, runner.place, lambda x, r=runner: r.feed(fill_rows(x, r.parts)), runner.fetch)
        for i, (leaf, expected) in enumerate(zip(found, alone[dropout], strict=True)):
            close(leaf, expected, f"{parallel} in {parts} part(s) on {len(jax.devices())} devices, leaf {i}")


def tiny_experiment() -> Experiment:
    """Ten steps on a handful of phrases; a checkpoint every second."""
    return Experiment(
        model=catalogue.module("models", "transformer").TINY.clone(
            vocabulary=0, source_vocabulary=0, encoder_layers=1, decoder_layers=1, tie="all", dropout=0.2
        ),
        task=catalogue.part("tasks", "translation")(),
        data=CldrPhrases(train=60, validation=6, test=6),
        steps=10,
        log_every=3,
        text=Text("char", 400),
        batching=Batching(tokens=1200, buckets=1, max_length=200),
        schedule=Schedule(peak=1e-2, warmup=2),
        validation=Validation(every=2, examples=6, beam=0),
    )


class Killed(Exception):
    """Stands for the end of the process."""


def resuming_changes_nothing(folder: Path) -> None:
    """A run cut off in a validation and started again ends, to the bit, as an uninterrupted one."""
    experiment = dataclasses.replace(tiny_experiment(), steps=6, log_every=2)

    def until(line: str) -> Callable[[str], None]:
        def say(text: str) -> None:
            if text.startswith(line):
                raise Killed

        return say

    def quiet(text: str) -> None: ...

    train(experiment, folder / "whole", folder / "data", say=quiet)
    for line in ("step 2:", "step 4:"):  # told before what came of that validation is noted
        try:
            train(experiment, folder / "cut", folder / "data", say=until(line))
        except Killed:
            continue
        raise LawBroken("the run was not cut off")
    require(checkpoint_steps(folder / "cut")[-1] == 4, "the last checkpoint before the cut is not that of step 4")
    train(experiment, folder / "cut", folder / "data", say=quiet)
    trees = [restore(folder / name, 6) for name in ("whole", "cut")]
    for (path, whole), cut in zip(
        jax.tree_util.tree_flatten_with_path(trees[0])[0], jax.tree.leaves(trees[1]), strict=True
    ):
        same(whole, cut, f"after resuming, {jax.tree_util.keystr(path)}")
    ends = [read_manifest(folder / name, 6)["progress"] for name in ("whole", "cut")]
    require(ends[0] == ends[1], f"cursor and best score differ after resuming: {ends}")
    logs = [(folder / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    require(logs[0] == logs[1], "the logs differ after resuming")


Law = Callable[..., Any]  # some tell the largest difference that they saw
ANY_MODEL_LAWS: tuple[Law, ...] = (
    pads_are_inert,
    longer_padding_changes_nothing,
    rows_are_independent,
    empty_rows_are_finite,
    jit_agrees_with_eager,
    dropout_acts_only_in_training,
    gradients_reach_every_parameter,
    four_examples_can_be_memorized,
)
GENERATOR_LAWS: tuple[Law, ...] = (
    future_is_unseen,
    past_matters,
    step_agrees_with_features,
    reorder_follows_parents,
    returned_scores_are_the_models,
    a_beam_that_holds_everything_is_exact,
    greedy_is_a_beam_of_one,
)
ANSWER_LAWS: tuple[Law, ...] = (input_matters,)
LANGUAGE_MODEL_LAWS: tuple[Law, ...] = (segments_are_apart,)
CARRY_LAWS: tuple[Law, ...] = (carry_continues_the_stream,)
ANY_TASK_LAWS: tuple[Law, ...] = (every_example_comes_once_an_epoch, rows_come_apart, filled_rows_weigh_nothing)
GENERATOR_TASK_LAWS: tuple[Law, ...] = (targets_are_the_next_tokens,)
SOURCE_TASK_LAWS: tuple[Law, ...] = (decoding_reads_what_training_reads,)
CLASSIFIER_TASK_LAWS: tuple[Law, ...] = (targets_are_the_labels,)
TAGGER_TASK_LAWS: tuple[Law, ...] = (targets_are_the_tags,)
REGRESSOR_TASK_LAWS: tuple[Law, ...] = (targets_are_the_numbers,)
STEP_LAWS: tuple[Law, ...] = (devices_agree,)
RUN_LAWS: tuple[Law, ...] = (resuming_changes_nothing,)


def model_laws(model: Any) -> tuple[Law, ...]:
    """The laws that a model must obey."""
    if catalogue.kind_of(model) != "generator":
        return ANY_MODEL_LAWS + ANSWER_LAWS + ((future_is_unseen,) if catalogue.kind_of(model) == "tagger" else ())
    if hasattr(model, "source_vocabulary"):
        return ANY_MODEL_LAWS + GENERATOR_LAWS

    def carry_of(prefix: Tokens) -> Any:
        return features_of(model, init_params(model, 0, Batch(None, prefix, None, None)), prefix, None)[1]

    carry = jax.eval_shape(carry_of, first_prompt(1))
    return ANY_MODEL_LAWS + GENERATOR_LAWS + LANGUAGE_MODEL_LAWS + (() if carry is None else CARRY_LAWS)


def task_laws(task: Any) -> tuple[Law, ...]:
    """The laws that a task must obey."""
    if task.KIND != "generator":
        laws = {"classifier": CLASSIFIER_TASK_LAWS, "tagger": TAGGER_TASK_LAWS, "regressor": REGRESSOR_TASK_LAWS}
        return ANY_TASK_LAWS + laws[task.KIND]
    return ANY_TASK_LAWS + GENERATOR_TASK_LAWS + (SOURCE_TASK_LAWS if "source" in task.columns else ())


CERTIFIED: dict[str, tuple[Law, ...]] = {
    "padding-inert": (pads_are_inert, longer_padding_changes_nothing),
    "rows independent": (rows_are_independent, empty_rows_are_finite),
    "causal": (future_is_unseen,),
    "the past matters": (past_matters,),
    "the input matters": (input_matters,),
    "step against forward": (step_agrees_with_features,),
    "reorder follows parents": (reorder_follows_parents,),
    "packed texts apart": (segments_are_apart,),
    "state carried": (carry_continues_the_stream,),
}


def certificate(model: Any, task: Any, params: Params | None = None) -> Iterator[tuple[str, bool, str]]:
    """What can be proved of a model at its full size, on a handful of rows of up to 64 positions: a name, whether it
    holds, and more. That the past matters is asked of rows as long as what convolutions see, or else of short ones,
    since what a recurrent layer has of the far past is soon less than rounding.

    `params` are drawn anew if there are none. Products are float32, whatever the model's dtype.
    """
    if hasattr(model, "dtype"):
        model = model.clone(dtype="float32")
    most = min(LONG, getattr(model, "longest", None) or LONG)
    reach = min(max((getattr(model, "receptive_field", None) or 0) + 2, max(LENGTHS)), most)
    features = getattr(task, "features", 0)
    long, short = (make_subject(model, source=most, target=n, features=features) for n in (most, reach))
    if params is not None:
        long, short = long._replace(params=params), short._replace(params=params)
    known = model_laws(model)
    for name, laws in CERTIFIED.items():
        if all(law in known for law in laws):
            try:
                s = short if name == "the past matters" else long
                gaps = [gap for law in laws if isinstance(gap := law(s), float)]
                yield name, True, f"largest difference {max(gaps):.1e}" if gaps else ""
            except LawBroken as broken:
                yield name, False, str(broken)
            except Exception as error:  # a user's model may break a law by not running at all
                yield name, False, f"{type(error).__name__}: {str(error).splitlines()[0]}"
