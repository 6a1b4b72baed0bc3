"""Planted bugs. Each changes a line of production code and must break the law that it names.

The package with the bug is imported from the changed source, separately from the real package.
"""

import collections
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest


class Mutant(NamedTuple):
    bug: str
    module: str
    old: str
    new: str
    law: str  # one of seqlab.laws.registry, or "test_module.test_function"
    part: str = "transformer"  # the model or task to test


MUTANTS = (
    Mutant(
        "causal mask dropped",
        "layers.attention",
        "jnp.tril(jnp.ones((length, length), bool)) & mask[:, None, :]",
        "jnp.ones((length, length), bool) & mask[:, None, :]",
        "future_is_unseen",
        "transformer_lm",
    ),
    Mutant(
        "source mask dropped",
        "layers.transformer",
        "self.through(self.drop(x, train=train), mask[:, None, :], train=train)",
        "self.through(self.drop(x, train=train), jnp.ones_like(mask[:, None, :]), train=train)",
        "pads_are_inert",
    ),
    Mutant(
        "target shifted by one",
        "data.batches",
        "np.append(tokenizer.bos, example) for",
        "np.append(example, tokenizer.eos) for",
        "targets_are_the_next_tokens",
        "translation",
    ),
    Mutant(
        "positions off by one in step",
        "models.transformer",
        'self.target_positions((t - state["offset"])[:, None])',
        'self.target_positions((t + 1 - state["offset"])[:, None])',
        "step_agrees_with_features",
    ),
    Mutant(
        "parents ignored in reorder",
        "layers.transformer",
        'jnp.take_along_axis(state["ancestors"], parents[..., None], axis=1)',
        'state["ancestors"]',
        "reorder_follows_parents",
        "transformer_lm",
    ),
    Mutant(
        "length penalty applied twice",
        "search.length_penalty",
        "/ length_penalty(length, alpha, rule)",
        "/ length_penalty(length, alpha, rule) ** 2",
        "returned_scores_are_the_models",
    ),
    Mutant(
        "finished score overwritten",
        "search.hypotheses",
        "jnp.concatenate([old, fresh], axis=1), finished, new)",
        "jnp.concatenate([old, fresh], axis=1), finished.replace(scores=finished.scores * 0 + 2 * NEVER), new)",
        "a_beam_that_holds_everything_is_exact",
    ),
    Mutant(
        "gradients averaged by device instead of by token",
        "training.step",
        "gradients, sums = jax.lax.psum((gradients, sums), axis)",
        'mean = jax.tree.map(lambda g: g / jnp.maximum(sums["weight"], 1.0), gradients)\n'
        "            sums = jax.lax.psum(sums, axis)\n"
        '            gradients = jax.tree.map(lambda g: jax.lax.pmean(g, axis) * sums["weight"], mean)',
        "devices_agree",
    ),
    Mutant(
        "dropout active in evaluation",
        "layers.dropout",
        "if not train or threshold == 0:",
        "if threshold == 0:",
        "dropout_acts_only_in_training",
    ),
    Mutant(
        "data cursor not restored",
        "training.feed",
        "collate, progress.epoch, progress.index",
        "collate, 0, 0",
        "resuming_changes_nothing",
    ),
    Mutant(
        "interrupted validation skipped",
        "training.loop",
        "if not self.progress.judged:",
        "if False:",
        "resuming_changes_nothing",
    ),
    Mutant(
        "interrupted validation logged twice",
        "runs.log",
        "(judged or not is_validation(line))",
        "True",
        "resuming_changes_nothing",
    ),
    Mutant(
        "first part of a batch used for all parts",
        "training.step",
        "jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)",
        "jnp.stack([x.reshape(parts, -1, *x.shape[1:])[0]] * parts)",
        "devices_agree",
    ),
    Mutant(
        "first rows used for any rows",
        "data.plans",
        "self.indices[chosen[chosen < len(self.indices)]]",
        "self.indices[: len(chosen)]",
        "rows_come_apart",
        "translation",
    ),
    Mutant(
        "positions counted from the end",
        "layers.embed",
        "jnp.maximum(jnp.cumsum(mask, axis=-1) - 1, 0)",
        "jnp.broadcast_to(jnp.arange(mask.shape[-1])[::-1], mask.shape)",
        "longer_padding_changes_nothing",
    ),
    Mutant(
        "every row reads the values of the first row",
        "layers.attention",
        'jnp.einsum("bhts,bshd->bthd", dropped, values)',
        'jnp.einsum("bhts,shd->bthd", dropped, values[0])',
        "rows_are_independent",
    ),
    Mutant(
        "masked scores infinite",
        "layers.attention",
        "MASKED = -1e9",
        'MASKED = -float("inf")',
        "empty_rows_are_finite",
    ),
    Mutant(
        "attention only to the current position",
        "layers.attention",
        "jnp.tril(jnp.ones((length, length), bool))",
        "jnp.eye(length, dtype=bool)",
        "past_matters",
        "transformer_lm",
    ),
    Mutant(
        "different scale when traced",
        "layers.embed",
        "else ids] * self.dim**0.5",
        "else ids] * (1.0 if isinstance(ids, jax.core.Tracer) else self.dim**0.5)",
        "jit_agrees_with_eager",
    ),
    Mutant(
        "gradient of values stopped",
        "layers.attention",
        "return self.key(memory), self.value(memory)",
        "import jax\n\n        return self.key(memory), jax.lax.stop_gradient(self.value(memory))",
        "gradients_reach_every_parameter",
    ),
    Mutant(
        "gradient ascent",
        "training.step",
        "optax.apply_updates(trained, updates)",
        "optax.apply_updates(state.params, jax.tree.map(jnp.negative, updates))",
        "four_examples_can_be_memorized",
        "transformer_lm",
    ),
    Mutant(
        "any of the 2K best may finish",
        "search.candidates",
        'may_end = size if rules.finish == "beam" else 2 * size',
        "may_end = 2 * size",
        "greedy_is_a_beam_of_one",
    ),
    Mutant(
        "parents swapped",
        "search.beam",
        "return new, parents[rows, order]",
        "return new, parents[rows, order][:, ::-1]",
        "returned_scores_are_the_models",
    ),
    Mutant(
        "length of finished hypotheses off by one",
        "search.beam",
        "score(log_probs, i + 1) + rewards",
        "score(log_probs, i + 2) + rewards",
        "returned_scores_are_the_models",
    ),
    Mutant(
        "one step too few",
        "search.candidates",
        "last = i + 1 >= requests.limit\n    forced_ids",
        "last = i + 2 >= requests.limit\n    forced_ids",
        "a_beam_that_holds_everything_is_exact",
    ),
    Mutant(
        "probabilities not normalized",
        "search.candidates",
        "total = jnp.maximum(log_probs[..., None] + best - normalizer, 2 * NEVER)",
        "total = jnp.maximum(log_probs[..., None] + best, 2 * NEVER)",
        "returned_scores_are_the_models",
    ),
    Mutant(
        "finished hypotheses continue",
        "search.beam",
        "is_removed = ends | last[:, None]",
        "is_removed = jnp.broadcast_to(last[:, None], ends.shape)",
        "returned_scores_are_the_models",
        "bahdanau",
    ),
    Mutant(
        "greedy search exceeds the limit",
        "search.sequences",
        "token = jnp.where((i + 1 >= requests.limit)[:, None], eos, chosen)",
        "token = jnp.where((i >= requests.limit)[:, None], eos, chosen)",
        "greedy_is_a_beam_of_one",
    ),
    Mutant(
        "last example of a bucket dropped",
        "data.buckets",
        "range(0, len(members), bucket.rows)",
        "range(0, len(members) - 1, bucket.rows)",
        "every_example_comes_once_an_epoch",
        "translation",
    ),
    Mutant(
        "attention across segments",
        "layers.attention",
        "return seen if segments is None else seen & (segments[:, :, None] == segments[:, None, :])",
        "return seen",
        "segments_are_apart",
        "transformer_lm",
    ),
    Mutant(
        "carry ignored",
        "layers.recurrent",
        "zero if state is None else state",
        "zero",
        "carry_continues_the_stream",
        "recurrent_lm",
    ),
    Mutant(
        "state carried into the next segment",
        "layers.recurrent",
        "state = tuple(jnp.where(fresh, 0.0, s) for s in state)",
        "pass",
        "segments_are_apart",
        "recurrent_lm",
    ),
    Mutant(
        "state changes at pads",
        "layers.recurrent",
        "jnp.where(real, n, s)",
        "jnp.where(real | True, n, s)",
        "step_agrees_with_features",
        "recurrent_lm",
    ),
    Mutant(
        "request without sentence numbers",
        "decoding.requests",
        "limit, sentences)",
        "limit, [0] * len(source))",
        "decoding_reads_what_training_reads",
        "summarization",
    ),
    Mutant(
        "dilation ignored in a step",
        "layers.convolution",
        "slot = (t - j * self.dilation) % self.reach",
        "slot = (t - j) % self.reach",
        "step_agrees_with_features",
        "tcn_lm",
    ),
    Mutant(
        "a convolution that looks ahead",
        "layers.convolution",
        "distance = j * self.dilation - self.ahead",
        "distance = j * self.dilation - self.ahead - 1",
        "future_is_unseen",
        "conv_seq2seq",
    ),
    Mutant(
        "pads counted as words of a sentence",
        "layers.hierarchy",
        "& inputs.mask[:, None, :]",
        "& (inputs.mask | True)[:, None, :]",
        "pads_are_inert",
        "encoders/hierarchical",
    ),
    Mutant(
        "states of hypotheses not reordered",
        "layers.hypotheses",
        "x[rows, parents]",
        "x",
        "reorder_follows_parents",
        "bahdanau",
    ),
    Mutant(
        "decoder state changes at pads",
        "layers.attentive_decoder",
        "jnp.where(real, n, s)",
        "jnp.where(real | True, n, s)",
        "step_agrees_with_features",
        "hierarchical_seq2seq",
    ),
    Mutant(
        "labels shifted by one",
        "tasks.tagging",
        "pad(labels, batch_plan.shape[0], batch_plan.row_count)",
        "pad([np.roll(row, 1) for row in labels], batch_plan.shape[0], batch_plan.row_count)",
        "targets_are_the_tags",
        "tagging",
    ),
    Mutant(
        "numbers reversed",
        "codecs.numbers",
        "row.reshape(-1, *self.shape)",
        "row[::-1].reshape(-1, *self.shape)",
        "targets_are_the_numbers",
        "regression",
    ),
    Mutant(
        "last position instead of last real position",
        "layers.summary",
        "jnp.maximum(mask.sum(axis=1) - 1, 0)",
        "jnp.full(mask.shape[:1], mask.shape[1] - 1)",
        "longer_padding_changes_nothing",
        "regressor_head",
    ),
    Mutant(
        "newline starts the next sentence",
        "data.padding",
        "(np.cumsum(ends, axis=-1) - ends)",
        "np.cumsum(ends, axis=-1)",
        "targets_are_the_labels",
        "classification",
    ),
    Mutant(
        "spans that ignore the epoch",
        "data.task",
        "[*(draw or ()), int(index)]",
        "[int(index)]",
        "corruption_follows_the_draw",
        "span_corruption",
    ),
    Mutant(
        "batch filled up with ones",
        "distributed.devices",
        "np.zeros((missing, *x.shape[1:]), x.dtype)",
        "np.ones((missing, *x.shape[1:]), x.dtype)",
        "filled_rows_weigh_nothing",
        "translation",
    ),
    Mutant(
        "state taken from the neighboring row",
        "layers.recurrent",
        'u = multiply("recurrent", h)',
        'u = multiply("recurrent", jnp.roll(h, 1, axis=0))',
        "rows_are_independent",
        "recurrent_lm",
    ),
    Mutant(
        "softmax of an empty sentence not masked",
        "layers.hierarchy",
        "masked_softmax((jnp.tanh(dense(x)) @ vector)[:, None, :], members)",
        "nn.softmax(jnp.where(members, (jnp.tanh(dense(x)) @ vector)[:, None, :], -jnp.inf))",
        "empty_rows_are_finite",
        "encoders/hierarchical",
    ),
    Mutant(
        "all taps at the same position",
        "layers.convolution",
        "distance = j * self.dilation - self.ahead",
        "distance = -self.ahead",
        "past_matters",
        "tcn_lm",
    ),
    Mutant(
        "different sum when compiled",
        "layers.recurrent",
        "x = self.input(x)",
        "x = self.input(x) + isinstance(x, jax.core.Tracer)",
        "jit_agrees_with_eager",
        "recurrent_lm",
    ),
    Mutant(
        "zero gradient of the recurrent matrix",
        "layers.scan",
        "jax.tree.map(gradient, operands, taps)",
        "jax.tree.map(lambda *both: 0 * gradient(*both), operands, taps)",
        "gradients_reach_every_parameter",
        "recurrent_lm",
    ),
    Mutant(
        "sentence vectors zeroed",
        "layers.hierarchy",
        'return jnp.einsum("bns,bse->bne", weights, x)',
        'return 0 * jnp.einsum("bns,bse->bne", weights, x)',
        "four_examples_can_be_memorized",
        "encoders/hierarchical",
    ),
    Mutant(
        "document vector zeroed",
        "layers.summary",
        "(values * mask[..., None]).sum(axis=1)",
        "(0 * values * mask[..., None]).sum(axis=1)",
        "input_matters",
        "encoders/mean",
    ),
    Mutant(
        "dropout in evaluation too",
        "layers.convolution",
        "y = self.drop(nn.relu(run(self.second, y)), train=train)",
        "y = self.drop(nn.relu(run(self.second, y)), train=True)",
        "dropout_acts_only_in_training",
        "tcn_lm",
    ),
)


class _MutantLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from source, changed if it is the module of the mutant."""

    def __init__(self, name: str, path: str, mutant: Mutant):
        super().__init__(name, path)
        self.mutant = mutant

    def get_code(self, fullname: str):
        source = Path(self.path).read_text(encoding="utf-8")
        if fullname == f"seqlab.{self.mutant.module}":
            assert source.count(self.mutant.old) == 1, (
                f"{self.mutant.old!r} occurs {source.count(self.mutant.old)} times"
            )
            source = source.replace(self.mutant.old, self.mutant.new)
        return compile(source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant):
        self.mutant = mutant

    def find_spec(self, fullname: str, path=None, target=None):
        if fullname.partition(".")[0] != "seqlab":
            return None
        result = importlib.machinery.PathFinder.find_spec(fullname, path)
        if result is None or result.origin is None:
            return result
        loader = _MutantLoader(fullname, result.origin, self.mutant)
        return importlib.util.spec_from_file_location(
            fullname, result.origin, loader=loader, submodule_search_locations=result.submodule_search_locations
        )


LAWS = tuple(f"seqlab.laws.{name}" for name in ("equality", "subject", "registry", "certificate", "tasks"))


@contextlib.contextmanager
def planted(mutant: Mutant, *names: str) -> Iterator[Any]:
    """Yields modules of the package with the bug: a single module, or a namespace with the names of several; by
    default the modules of laws. Restores the real package afterwards.
    """

    def take_out() -> dict[str, ModuleType]:
        loaded = [name for name in sys.modules if name.partition(".")[0] == "seqlab" or name.startswith("tests.")]
        return {name: sys.modules.pop(name) for name in loaded if name != __name__}

    real, finder = take_out(), _Finder(mutant)
    sys.meta_path.insert(0, finder)
    try:
        modules = [importlib.import_module(name) for name in names or LAWS]
        yield modules[0] if len(modules) == 1 else SimpleNamespace(**collections.ChainMap(*map(vars, modules)))
    finally:
        sys.meta_path.remove(finder)
        take_out()
        sys.modules.update(real)


def each_mutant(mutants: Iterable[tuple[Mutant, Any]]) -> pytest.MarkDecorator:
    """Returns the parametrization of a test by mutants and the arguments of the tests that catch them."""
    return pytest.mark.parametrize(
        ("mutant", "arguments"), mutants, ids=lambda value: getattr(value, "bug", "").replace(" ", "-")
    )


def check_caught(mutant: Mutant, arguments: Any, tmp_path: Path) -> None:
    """Raises an error unless the test that a mutant names fails with the bug. `arguments` are those of the test
    without `tmp_path`, or a function that returns them, given the test's module.
    """
    module, _, name = mutant.law.rpartition(".")
    with planted(mutant, f"tests.{module}") as mutated:
        test = getattr(mutated, name)
        options = {"tmp_path": tmp_path} if "tmp_path" in inspect.signature(test).parameters else {}
        values = arguments(mutated) if callable(arguments) else arguments
        with pytest.raises(AssertionError):
            test(*values, **options)
