"""Planted bugs in pre-training, encoders and adapters: each must fail the named test."""

from tests.mutants import Mutant, check_caught, each_mutant

MASKS = "transfer.test_masked_tokens."
ENCODERS = "transfer.test_encoders."
CORRUPTION = "transfer.test_corruption."
ADAPTERS, SPANS = "transfer.test_adapters.", "transfer.test_spans."
MUTANTS = [
    (
        Mutant(
            "every masked token is [MASK]",
            "tasks.masked_tokens",
            "KEPT, RANDOM = 0.1, 0.1",
            "KEPT, RANDOM = 0.0, 0.0",
            MASKS + "test_masks",
        ),
        lambda tests: (tests.MaskedTokens(),),
    ),
    (
        Mutant(
            "masks that ignore the epoch",
            "data.task",
            "[*(draw or ()), int(index)]",
            "[*(draw or ())[:1], int(index)]",
            MASKS + "test_masks_depend_on_the_epoch",
        ),
        (),
    ),
    (
        Mutant(
            "a second text that always follows",
            "tasks.masked_tokens",
            "bool(random.random() < 0.5)",
            "bool(random.random() < 2.0)",
            MASKS + "test_pairs",
        ),
        (),
    ),
    (
        Mutant(
            "EOS is masked",
            "tasks.masked_tokens",
            "np.flatnonzero(text != codec.eos)",
            "np.arange(len(text))",
            MASKS + "test_pairs",
        ),
        (),
    ),
    (
        Mutant(
            "pairs have a weight of their own",
            "tasks.masked_tokens",
            "batch.weights.sum(1)",
            "batch.weights.max(1)",
            MASKS + "test_the_loss_is_that_of_numpy",
        ),
        (),
    ),
    (
        Mutant(
            "masked tokens counted as examples",
            "data.task",
            "{Generator, Tagger} & {*self.model.__mro__}",
            "self.model in (Generator, Tagger)",
            "tasks.test_tasks.test_the_weights_of_a_batch_count_units",
        ),
        ("masked_tokens",),
    ),
    (
        Mutant(
            "partitions with equal steps",
            "tasks.span_corruption",
            "random.choice(total - 1, parts - 1, replace=False)",
            "np.arange(parts - 1)",
            CORRUPTION + "test_partitions_are_equally_likely",
        ),
        (),
    ),
    (
        Mutant(
            "a masked word keeps its length",
            "tasks.denoising",
            "(is_first | ~is_masked[words])",
            "(is_first | True)",
            CORRUPTION + "test_masked_words",
        ),
        (),
    ),
    (
        Mutant(
            "words move too far",
            "tasks.denoising",
            "random.uniform(0, self.distance + 1, count)",
            "random.uniform(0, self.distance + 3, count)",
            CORRUPTION + "test_shuffled_words_move_a_little",
        ),
        (1,),
    ),
    (
        Mutant(
            "token types ignored",
            "encoders.bert",
            "x + self.types(types)",
            "x + self.types(0 * types)",
            ENCODERS + "test_token_types_and_the_summary",
        ),
        (),
    ),
    (
        Mutant(
            "adapters without their residual connection",
            "layers.transformer",
            "return x + FeedForward(*sizes",
            "return FeedForward(*sizes",
            ADAPTERS + "test_values_at_the_start",
        ),
        ("models", "transformer_lm"),
    ),
    (
        Mutant(
            "steps without adapters",
            "layers.transformer",
            "self.after(self.self_norm, self.self_adapter, x, y, False)",
            "self.after(self.self_norm, lambda y: y, x, y, False)",
            ADAPTERS + "test_steps_have_adapters",
        ),
        ("transformer_lm",),
    ),
    (
        Mutant(
            "backward direction reads ahead",
            "encoders.bilm",
            "back(backward, mask, reverse=True, train=train)",
            "back(backward, mask, train=train)",
            ENCODERS + "test_neither_direction_sees_its_prediction",
        ),
        (),
    ),
    (
        Mutant(
            "layers are not mixed",
            "encoders.elmo",
            "jax.nn.softmax(scores)",
            "jax.nn.softmax(0 * scores)",
            ENCODERS + "test_the_mixture_of_layers",
        ),
        (),
    ),
    (
        Mutant(
            "words of all sentences together",
            "layers.hierarchy",
            "members(inputs, sentences)",
            "members(inputs, 1)",
            ENCODERS + "test_sentences_on_another_encoder",
        ),
        (),
    ),
    (
        Mutant(
            "convolutions at pads",
            "encoders.kim",
            "jnp.where(mask[..., None], jnp.concatenate(maps, axis=-1), 0.0)",
            "jnp.concatenate(maps, axis=-1)",
            ENCODERS + "test_convolutions_of_several_widths",
        ),
        ((2, 3),),
    ),
    (
        Mutant(
            "highway gates exchanged",
            "encoders.kim",
            "t * jax.nn.relu(inner(summary)) + (1 - t) * summary",
            "(1 - t) * jax.nn.relu(inner(summary)) + t * summary",
            ENCODERS + "test_highway_layers",
        ),
        (),
    ),
    (
        Mutant(
            "the second text keeps its place",
            "models.pair_head",
            "jnp.argsort(~members, axis=1, stable=True)",
            "jnp.argsort(members, axis=1, stable=True)",
            ENCODERS + "test_the_texts_of_a_pair",
        ),
        (),
    ),
    (
        Mutant(
            "a span continues with another label",
            "metrics.span_f1",
            'prefix == "I" and label == current',
            'prefix == "I"',
            "transfer.test_heads.test_spans",
        ),
        ("B-a B-a I-b I-b", {("a", 0, 1), ("a", 1, 2), ("b", 2, 4)}),
    ),
    (
        Mutant(
            "labels at the last tokens",
            "tasks.word_tagging",
            "np.flatnonzero(codec.begins_word[ids])",
            "np.flatnonzero(np.roll(codec.begins_word[ids], -1))",
            "transfer.test_heads.test_targets_are_at_the_first_token_of_each_word",
        ),
        (),
    ),
    (
        Mutant(
            "an answer ends before it begins",
            "tasks.span_extraction",
            " * np.tri(len(scores)).T > 0",
            " > 0",
            SPANS + "test_the_best_span_is_that_of_a_loop",
        ),
        (7, 9),
    ),
    (
        Mutant(
            "the end of the context is an answer",
            "tasks.span_extraction",
            "return second & jnp.pad",
            "return second | jnp.pad",
            SPANS + "test_the_loss_is_that_of_numpy",
        ),
        (),
    ),
    (
        Mutant(
            "answers inside of words come first",
            "tasks.span_extraction",
            "% (WORD, pattern, WORD)",
            '% (b"x", pattern, b"x")',
            SPANS + "test_answers_are_aligned_to_tokens",
        ),
        ("char", "In 1912, 12 cats", "12", (9, 11)),
    ),
    (
        Mutant(
            "repeated words of an answer count once",
            "metrics.word_f1",
            "(Counter(words) & Counter(expected)).values()",
            "Counter({*words} & {*expected}).values()",
            SPANS + "test_word_f1",
        ),
        (),
    ),
    (
        Mutant(
            "an interrupted file begins again",
            "decoding.distilled_data",
            "windows_of(data.read(TRAIN, start), None, WINDOW)",
            "windows_of(data.read(TRAIN), None, WINDOW)",
            "transfer.test_distilled_data.test_an_interrupted_file_is_continued",
        ),
        (),
    ),
    (
        Mutant(
            "the held-out packages are trained on",
            "datasets.debian_descriptions",
            "_place(owner) < 2 * HELD_OUT for",
            "_place(owner) < HELD_OUT for",
            "transfer.test_datasets.test_pre_training_text_is_apart_from_the_held_out_splits",
        ),
        (),
    ),
]


@each_mutant(MUTANTS)
def test_mutant_is_caught(mutant, arguments, tmp_path):
    check_caught(mutant, arguments, tmp_path)
