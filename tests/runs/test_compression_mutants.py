"""The test that each planted bug of parametrizations, merging, pruning and quantization is caught."""

from typing import Any

from tests.mutants import Mutant, check_caught, each_mutant

PARAMETRIZED, COMPRESSION = "runs.test_parametrized.", "runs.test_compression."
ROUNDED = "layers.test_quantization."

MUTANTS: tuple[tuple[Mutant, tuple[Any, ...]], ...] = (  # with the arguments of the tests
    (
        Mutant(
            "added parameters initialized from another base",
            "training.train",
            "params = init_experiment_parameters(experiment, initial)",
            "added = init_experiment_parameters(experiment)['added']\n"
            "    params = {**init_experiment_parameters(experiment, initial), 'added': added}",
            PARAMETRIZED + "test_added_parameters_are_initialized_from_the_base_of_the_run",
        ),
        (),
    ),
    (
        Mutant(
            "replaced parameters stored as well",
            "runs.parametrized",
            "for path, leaf in base.items() if path not in replaced}",
            "for path, leaf in base.items()}",
            PARAMETRIZED + "test_replaced_parameters_are_absent",
        ),
        (),
    ),
    (
        Mutant(
            "nothing trained if nothing is added",
            "runs.parametrized",
            "parametrization is None or adds_nothing(parametrization) or parametrization.trains_base:",
            "parametrization is None or parametrization.trains_base:",
            PARAMETRIZED + "test_trained_by_default",
        ),
        (),
    ),
    (
        Mutant(
            "integers trained",
            "runs.trainable",
            "if re.search(pattern, path) and is_floating(leaf)}",
            "if re.search(pattern, path)}",
            "training.test_trainable.test_integers_are_frozen",
        ),
        (),
    ),
    (
        Mutant(
            "zeros trained",
            "parametrizations.keep_zeros",
            "jnp.where(weights == 0, 0.0, weights)",
            "jnp.asarray(weights)",
            PARAMETRIZED + "test_zeros_are_kept",
        ),
        (),
    ),
    (
        Mutant(
            "no gradient through the rounding",
            "parametrizations.fake_quantized",
            " + (weights - fixed)",
            "",
            PARAMETRIZED + "test_gradients_pass_through_the_rounding",
        ),
        (),
    ),
    (
        Mutant(
            "parametrization kept after merging",
            "runs.derived",
            "dataclasses.replace(without_base(loaded.experiment), parametrization=None)",
            "loaded.experiment",
            COMPRESSION + "test_merging_writes_what_decoding_uses",
        ),
        (),
    ),
    (
        Mutant(
            "negative weights pruned",
            "runs.pruning",
            "np.where(np.abs(matrix) > limits[path], matrix, 0)",
            "np.where(matrix > limits[path], matrix, 0)",
            COMPRESSION + "test_weights_are_pruned_as_in_lists",
        ),
        (),
    ),
    (
        Mutant(
            "one weight too many",
            "runs.pruning",
            "np.partition(magnitudes, count - 1)[count - 1]",
            "np.partition(magnitudes, count)[count]",
            COMPRESSION + "test_thresholds",
        ),
        (),
    ),
    (
        Mutant(
            "heads judged by their first matrix",
            "runs.pruning",
            "np.abs(np.concatenate(parts, axis=1)).mean(axis=1)",
            "np.abs(parts[0]).mean(axis=1)",
            COMPRESSION + "test_heads_are_pruned_as_in_loops",
        ),
        (),
    ),
    (
        Mutant(
            "scales of columns of a table",
            "layers.quantization",
            'if path.endswith("table"):',
            'if path.endswith("tables"):',
            ROUNDED + "test_as_in_numpy",
        ),
        (8, "table", (9, 70)),
    ),
    (
        Mutant(
            "scales interleaved",
            "layers.quantization",
            "jnp.repeat(scales, -(-size // count), axis)",
            "jnp.concatenate([scales] * -(-size // count), axis)",
            ROUNDED + "test_as_in_numpy",
        ),
        (4, "query/kernel", (70, 2, 5)),
    ),
    (
        Mutant(
            "weights rounded down",
            "layers.quantization",
            "jnp.round(weights / ",
            "jnp.floor(weights / ",
            ROUNDED + "test_the_error_is_at_most_half_a_scale",
        ),
        (8,),
    ),
    (
        Mutant(
            "halves of a byte exchanged",
            "layers.quantization",
            "jnp.stack([packed & 15, packed >> 4], axis=-1)",
            "jnp.stack([packed >> 4, packed & 15], axis=-1)",
            ROUNDED + "test_two_integers_share_a_byte",
        ),
        (),
    ),
    (
        Mutant(
            "signs of packed integers lost",
            "layers.quantization",
            "(halves ^ 8).astype(jnp.int8) - jnp.int8(8)",
            "halves.astype(jnp.int8)",
            ROUNDED + "test_all_pairs_are_unpacked",
        ),
        (),
    ),
)


@each_mutant(MUTANTS)
def test_mutant_is_caught(mutant, arguments, tmp_path):
    check_caught(mutant, arguments, tmp_path)
