"""Planted bugs in fine-tuning, embeddings and regularizers: each must fail the named test."""

from tests.mutants import Mutant, check_caught, each_mutant

TOKENIZERS, EMBEDDINGS = "transfer.test_other_tokenizers.", "decoding.test_embeddings."
TUNING, REGULARIZERS = "transfer.test_fine_tuning.", "transfer.test_regularizers."
CURRICULUM = "transfer.test_curriculum."
FROZEN = TUNING + "test_frozen_until_their_step"
MUTANTS = [
    (
        Mutant(
            "pieces in another order",
            "runs.pieces",
            "stored_axis.axis, 0)[sources]",
            "stored_axis.axis, 0)[sources[::-1]]",
            TOKENIZERS + "test_entries_move_with_their_pieces",
        ),
        (0,),
    ),
    (
        Mutant(
            "tokenizers of equal size are taken for equal",
            "runs.initialize",
            "stored_axis.codec.digest != axis.codec.digest",
            "leaf.shape != initial[path].shape",
            TOKENIZERS + "test_tokenizers_of_equal_size_are_not_equal",
        ),
        (),
    ),
    (
        Mutant(
            "a whole model starts with rows by position",
            "runs.initialize",
            "differ = pieces_differ(run, codecs)",
            "differ = False",
            TOKENIZERS + "test_a_whole_model_starts_with_matching_rows",
        ),
        ("the same",),
    ),
    (
        Mutant(
            "the first position in place of the summary",
            "decoding.embeddings",
            "train=False).summary",
            "train=False).values[:, 0]",
            EMBEDDINGS + "test_the_summary_is_that_of_the_encoder",
        ),
        (),
    ),
    (
        Mutant(
            "lines counted from 1 in each window",
            "decoding.embeddings",
            "number += len(window)",
            "number = 0",
            EMBEDDINGS + "test_long_lines_are_named",
        ),
        (),
    ),
    (
        Mutant(
            "the lowest layer learns fastest",
            "training.depth",
            "sizes[stack] - 1 - number for",
            "number for",
            TUNING + "test_rates_of_a_stack",
        ),
        (),
    ),
    (
        Mutant(
            "embeddings learn like the lowest layer",
            "training.depth",
            "return 1 + max(inside)",
            "return max(inside)",
            TUNING + "test_rates_of_a_stack",
        ),
        (),
    ),
    (
        Mutant(
            "updates of zero flip the sign of -0.0",
            "training.trainable",
            "replaced(changes, step, -0.0)",
            "replaced(changes, step, 0.0)",
            FROZEN,
        ),
        ("jit", 1, 0.0),
    ),
    (
        Mutant(
            "moments before unfreezing",
            "training.trainable",
            "optimizer.update(replaced(gradients, step, 0.0), ",
            "optimizer.update(gradients, ",
            FROZEN,
        ),
        ("jit", 1, 0.0),
    ),
    (
        Mutant("unfreezing a step late", "training.trainable", "step < first, value", "step <= first, value", FROZEN),
        ("jit", 1, 0.0),
    ),
    (
        Mutant(
            "the norm of vectors too",
            "training.optimizer",
            "jnp.sign(p) if p.ndim > 1 else g",
            "jnp.sign(p)",
            TUNING + "test_the_subgradient_of_the_l1_norm",
        ),
        (),
    ),
    (
        Mutant(
            "the mean starts a step late",
            "training.averages",
            "+ 2.0 - first",
            "+ 1.0 - first",
            TUNING + "test_the_mean_of_parameters",
        ),
        (1,),
    ),
    (
        Mutant(
            "remaining branches not scaled",
            "layers.dropout",
            "x / (1.0 - rate)",
            "x",
            REGULARIZERS + "test_the_expectation_is_kept",
        ),
        (),
    ),
    (
        Mutant(
            "elements dropped instead of rows",
            "layers.dropout",
            "(x.shape[0], *[1] * (x.ndim - 1))",
            "x.shape",
            REGULARIZERS + "test_the_expectation_is_kept",
        ),
        (),
    ),
    (
        Mutant(
            "the same rate in all layers",
            "layers.transformer",
            "jnp.arange(1, self.layers + 1) / self.layers",
            "jnp.ones(self.layers)",
            REGULARIZERS + "test_the_rate_grows_with_depth",
        ),
        ({"scan": True},),
    ),
    (
        Mutant(
            "norms over one axis",
            "parametrizations.weight_norm",
            "direction.ndim - norm.ndim",
            "1",
            REGULARIZERS + "test_weight_normalization_against_its_definition",
        ),
        ((2, 3, 4), 2),
    ),
    (
        Mutant(
            "only directions and norms trained",
            "parametrizations.weight_norm",
            "trains_base = True",
            "trains_base = False",
            REGULARIZERS + "test_weight_normalization_of_a_model",
        ),
        (),
    ),
    (
        Mutant(
            "filled rows as partners",
            "layers.mixup",
            "jnp.where(real, jax.random.uniform(order_key, weights.shape), 2.0)",
            "jax.random.uniform(order_key, weights.shape)",
            REGULARIZERS + "test_partners_are_real_rows",
        ),
        (),
    ),
    (
        Mutant(
            "the classes of partners ignored",
            "tasks.classification",
            "(batch.targets[partners], 1 - share)",
            "(batch.targets, 1 - share)",
            REGULARIZERS + "test_mixtures_against_their_definition",
        ),
        (),
    ),
    (
        Mutant(
            "a curriculum that ends an epoch early",
            "data.curriculum",
            "(epoch + 1) // (self.epochs + 1)",
            "(epoch + 1) // self.epochs",
            CURRICULUM + "test_a_curriculum_starts_with_short_examples",
        ),
        (),
    ),
    (
        Mutant(
            "the highest scores first",
            "data.curriculum",
            "np.argsort(scores[usable], kind",
            "np.argsort(-scores[usable], kind",
            CURRICULUM + "test_a_curriculum_by_scores_starts_with_the_lowest",
        ),
        (),
    ),
    (
        Mutant(
            "the longest examples first",
            "data.curriculum",
            "key=lambda i: sum(buckets[i].shape)",
            "key=lambda i: -sum(buckets[i].shape)",
            CURRICULUM + "test_a_curriculum_starts_with_short_examples",
        ),
        (),
    ),
]


@each_mutant(MUTANTS)
def test_mutant_is_caught(mutant, arguments, tmp_path):
    check_caught(mutant, arguments, tmp_path)
