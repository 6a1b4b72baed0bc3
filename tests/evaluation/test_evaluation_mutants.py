"""Planted bugs in the evaluation of texts: each must fail the named test."""

from tests.mutants import Mutant, check_caught, each_mutant

WHOSE = "evaluation.test_evaluation.test_whose_fault_it_is"
MUTANTS = [
    (
        Mutant(
            "a tie is the search's fault", "evaluation.analysis", "if reference > text", "if reference >= text", WHOSE
        ),
        (),
    ),
    (
        Mutant(
            "faults the other way round", "evaluation.analysis", "if reference > text", "if reference < text", WHOSE
        ),
        (),
    ),
    (
        Mutant(
            "what was left out of the reference is not shown",
            "evaluation.report",
            "* (b > a)",
            "* (b < a)",
            "evaluation.test_evaluation.test_differences_spell_both",
        ),
        (),
    ),
    (
        Mutant(
            "recall in the place of F1",
            "metrics.macro_f1",
            "(2 * right[present] / (predicted + in_reference)[present])",
            "(right[present] / in_reference[present])",
            "metrics.test_metrics.test_macro_f1",
        ),
        (),
    ),
    (
        Mutant(
            "rows and columns of a confusion swapped",
            "evaluation.confusion",
            "counts[places[right], places[line]] += 1",
            "counts[places[line], places[right]] += 1",
            "metrics.test_metrics.test_macro_f1",
        ),
        (),
    ),
    (
        Mutant(
            "letters that are dropped are not missed",
            "evaluation.doubts",
            "not c.isascii()",
            "c.isascii()",
            "metrics.test_metrics.test_rouge_of_what_is_not_ascii",
        ),
        (),
    ),
    (
        Mutant(
            "a blank before the end is not seen",
            "evaluation.doubts",
            'line.rstrip()[-2:-1] == " "',
            'line.rstrip()[-1:] == " "',
            "metrics.test_metrics.test_tokenized_text_is_questioned",
        ),
        (),
    ),
    (
        Mutant(
            "marks begin a word",
            "metrics.rouge",
            'if result and joined and kind == "M":',
            'if result and joined and kind == "P":',
            "metrics.test_metrics.test_words_of_any_script",
        ),
        ("กิน", ["กิ", "น"]),
    ),
    (
        Mutant(
            "no line is dealt out anew",
            "evaluation.significance",
            "random.permuted(_places(counts), axis=1)",
            "random.permuted(_places(counts), axis=0)",
            "evaluation.test_significance.test_randomization_against_all_exchanges",
        ),
        (),
    ),
    (
        Mutant(
            "repetitions of other words",
            "evaluation.buckets",
            "return len(grams) > len({*grams})",
            "return len(grams) >= len({*grams})",
            "evaluation.test_buckets.test_repetitions",
        ),
        (),
    ),
]


@each_mutant(MUTANTS)
def test_mutant_is_caught(mutant, arguments, tmp_path):
    check_caught(mutant, arguments, tmp_path)
