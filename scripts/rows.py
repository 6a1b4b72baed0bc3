"""The rows of the results in docs/results.md: the commands of each run, the scores that it reports, and published
figures. scripts/reproduce.py runs them.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Command(NamedTuple):
    """A Python command. {run}, {row} and {folder} in its fields are the folders of the run, the row and the data;
    {seed} is the seed, and {suffix} ends the names of folders of runs with this seed.
    """

    arguments: tuple[str, ...]
    """The arguments of `python`."""
    makes: str | None = None
    """A folder that the command creates. If it exists, the command is skipped."""


@dataclass(frozen=True)
class Row:
    title: str
    published: str
    runs: dict[str, tuple[Command, ...]]
    """The commands of each run, by name. The last command prints JSON with the scores."""
    scores: tuple[str, ...]
    """The names of the reported scores."""
    curve: str = ""
    """A score of the log whose curve is stored and plotted."""


def seqlab(*arguments: str, makes: str | None = None) -> Command:
    """Returns a command of seqlab."""
    return Command(("-m", "seqlab.cli", *arguments), makes)


def train(config: str, *options: str) -> Command:
    return seqlab("train", f"configs/{config}.py", "--out", "{run}", "--seed", "{seed}", *options)


def train_and_evaluate(config: str, *options: str, split: str = "test", average: int = 0) -> tuple[Command, ...]:
    """Returns commands that train and evaluate, with `average` using the mean of the last `average` checkpoints."""
    commands = [train(config, *options)]
    evaluated_run = "{run}"
    if average:
        evaluated_run = "{run}-average"
        commands.append(seqlab("average", "{run}", "--last", str(average), makes=evaluated_run))
    return (*commands, seqlab("evaluate", evaluated_run, "--split", split, "--json"))


def captions(config: str, pair: str = "en-de", version: str = "raw", average: int = 0) -> tuple[Command, ...]:
    """Returns commands that prepare Multi30k from a local folder, train and evaluate."""
    preparation = seqlab("prepare", f"multi30k/{pair}", "--version", version, "--folder", "{folder}")
    options = ("--data.pair", pair, "--data.version", version)
    return (preparation, *train_and_evaluate(config, *options, split="test_2016_flickr", average=average))


def adding(length: int) -> Row:
    """Returns the row of the adding problem with sequences of a length."""
    lengths = (
        "--data.length",
        str(length),
        "--batching.tokens",
        str(32 * length),
        "--batching.max-length",
        str(length),
    )

    def recurrent(cell: str, dim: int, *options: str) -> tuple[Command, ...]:
        sizes = ("--model.encoder.cell", cell, "--model.encoder.dim", str(dim))
        return train_and_evaluate("adding_problem", *lengths, *sizes, *options)

    small_steps = ("--optimizer.name", "sgd", "--schedule.peak", "0.01", "--optimizer.clip", "1")
    return Row(
        title=f"adding problem, {length} positions, 3,000 updates, 50,000 to 58,000 parameters: test MSE",
        published="always 1: 1/6 (0.1767 in Le et al. 2015, where IRNN and LSTM learn it with many more updates); at "
        "600 positions TCN 5.8e-5, GRU 5.3e-5, LSTM 0.164, RNN 0.177 (Bai et al. 2018, table 1)",
        runs={
            "rnn": recurrent("rnn", 225),
            "irnn": recurrent("irnn", 225, *small_steps),
            "lstm": recurrent("lstm", 110),
            "gru": recurrent("gru", 130),
            "tcn": train_and_evaluate("adding_problem_tcn", *lengths),
        },
        scores=("mean squared error", "mean squared error (mean)"),
        curve="validation mse",
    )


def fine_tune(
    name: str, config: str, preparation: Command | None = None, *options: str
) -> dict[str, tuple[Command, ...]]:
    """Returns the runs that train a model from scratch and from the row's pre-trained encoder, and compare them."""
    preparations = () if preparation is None else (preparation,)
    initialization = ("--initialize", "encoder", "../pretraining", "encoder")
    return {
        f"{name} from scratch": (*preparations, *train_and_evaluate(config, *SOURCE_TOKENIZER, *options)),
        name: (*preparations, *train_and_evaluate(config, *SOURCE_TOKENIZER, *initialization, *options)),
        f"{name}, gain": compare_runs(f"{{row}}/{name}-from-scratch{{suffix}}", f"{{row}}/{name}{{suffix}}"),
    }


def compare_runs(baseline: str, run: str, metric: str = "accuracy", split: str = "test") -> tuple[Command, ...]:
    """Returns a command that tests whether a run is better than another one."""
    return (Command(("scripts/significance.py", baseline, run, "--metric", metric, "--split", split)),)


def compare_snips(labels: str, suffix: str, metric: str) -> dict[str, tuple[Command, ...]]:
    """Returns the runs on SNIPS with and without the pre-trained language model, and their comparison."""
    preparation = seqlab("prepare", f"snips/{labels}", "--folder", "{folder}/snips")
    initialization = ("--initialize", "encoder/encoder", "../pretraining", "encoder")
    options = (*SOURCE_TOKENIZER, *initialization, "--optimizer.trainable", "^params/(?!encoder/encoder/)")
    return {
        f"{labels}, LSTM": (preparation, *train_and_evaluate(f"snips_recurrent{suffix}", *SOURCE_TOKENIZER)),
        f"{labels}, ELMo": (preparation, *train_and_evaluate(f"elmo_snips{suffix}", *options)),
        f"{labels}, gain": compare_runs(
            f"{{row}}/{labels}-LSTM{{suffix}}", f"{{row}}/{labels}-ELMo{{suffix}}", metric
        ),
    }


def continue_training(config: str, *options: str) -> tuple[Command, ...]:
    """Returns commands that train a language model on Tiny Shakespeare, and measure its loss and its costs."""
    preparation = seqlab("prepare", "tiny_shakespeare", "--folder", "{folder}/tinyshakespeare")
    return (preparation, train(config, *options), Command(("scripts/footprint.py", "{run}", "--split", "validation")))


def measure_translation(run: str, beam: int, split: str = "test_2016_flickr") -> Command:
    """Returns a command that measures BLEU, speed and size of a run on a split."""
    return Command(("scripts/decoding_cost.py", run, "--split", split, "--beam", str(beam)))


def train_translator(config: str, beam: int, *options: str, split: str = "test_2016_flickr") -> tuple[Command, ...]:
    """Returns commands that train a translation model and measure its BLEU, speed and size on Multi30k."""
    return train(config, *options), measure_translation("{run}", beam, split)


def prune(percent: int) -> tuple[Command, ...]:
    """Returns commands that prune the teacher and measure the result."""
    return (
        seqlab("prune", TEACHER, "--out", "{run}", "--share", str(percent / 100)),
        measure_translation("{run}", 5),
    )


def quantize(bits: int) -> tuple[Command, ...]:
    """Returns commands that quantize the teacher and measure the result."""
    return (seqlab("quantize", TEACHER, "--out", "{run}", "--bits", str(bits)), measure_translation("{run}", 5))


MULTI30K = seqlab("prepare", "multi30k/en-de", "--version", "raw", "--folder", "{folder}/multi30k")
SOURCE_TOKENIZER = ("--tokenizer", "{row}/pretraining/codecs/source.sentencepiece")
JOINT_TOKENIZER = ("--tokenizer", "{row}/pretraining/codecs/source+target.sentencepiece")
TEACHER = "runs/distill-multi30k/teacher"
TEACHER_CODEC = ("--tokenizer", f"{TEACHER}/codecs/source+target.sentencepiece")
STUDENT = (  # as in configs/multi30k_student.py
    *("--model.dim", "128", "--model.hidden", "512"),
    *("--model.encoder-layers", "2", "--model.decoder-layers", "2"),
    *("--model.dropout", "0.1", "--schedule.peak", "2e-3"),
)
DISTILLED = (
    *("--data.train", "{row}/distilled/train.jsonl", "--data.validation", "{row}/distilled/validation.jsonl"),
    *("--data.test", "{row}/distilled/test_2016_flickr.jsonl"),
)
TARGET_TOKENIZER = ("--tokenizer", "{row}/pretraining/codecs/target.sentencepiece")
WHOLE_MODEL = ("--initialize", "", "../pretraining", "")
BERT_LAYERS = ("--model.activation", "gelu", "--model.biases")  # as in BERT, from which the row bert-multi30k starts
ROWS = {
    "adding-200": adding(200),
    "adding-400": adding(400),
    "copy-500": Row(
        title="copy memory, delay 500, 3,000 updates; LSTM 21,000, GRU 23,000, TCN 13,000 parameters: "
        "nats per position",
        published="without memory 0.040; at a delay of 1,000 TCN 3.5e-5, LSTM and GRU 0.020, without memory 0.020 "
        "(Bai et al. 2018, table 1)",
        runs={
            "lstm": train_and_evaluate(
                "copy_memory_recurrent", "--model.encoder.cell", "lstm", "--model.encoder.dim", "50"
            ),
            "gru": train_and_evaluate("copy_memory_recurrent"),
            "tcn": train_and_evaluate("copy_memory"),
        },
        scores=("loss",),
        curve="validation loss",
    ),
    "multi30k-tok": Row(
        title="Multi30k en-de, `tok` files, Transformer of width 128: tokenized lower-cased BLEU on test2016",
        published="41.02 (Wu et al. 2021)",
        runs={"transformer": captions("multi30k_tok_transformer", version="tok", average=10)},
        scores=("tokenized BLEU",),
    ),
    "multi30k-de-en": Row(
        title="Multi30k de-en, raw files, `bahdanau` GRU, SentencePiece 8,000: BLEU on test2016",
        published="-",
        runs={"bahdanau": captions("multi30k_bahdanau", pair="de-en")},
        scores=("BLEU",),
    ),
    "multi30k-en-de": Row(
        title="Multi30k en-de, raw files, the same budget for each: BLEU on test2016",
        published="-",
        runs={
            name: captions(f"multi30k_{name}") for name in ("transformer", "conv_seq2seq", "bahdanau", "sutskever")
        },
        scores=("BLEU",),
    ),
    "bert-small": Row(
        title="a small BERT encoder, pre-trained on `debian_descriptions/text`: accuracy of masked tokens; the same "
        "model fine-tuned and trained from scratch: accuracy, %",
        published="convolutions of words: TREC 88.2, SST-2 83.5 (trained on phrases; `harvardnlp/sent-conv-torch`); "
        "SICK 79.9 (`brmson/dataset-sts`)",
        runs={
            "pretraining": train_and_evaluate("bert_small"),
            **fine_tune("trec", "bert_trec", seqlab("prepare", "sentences/trec", "--folder", "{folder}/sentences")),
            **fine_tune(
                "sst2",
                "bert_trec",
                seqlab("prepare", "sentences/sst2", "--folder", "{folder}/sentences"),
                "--data.name",
                "sst2",
            ),
            **fine_tune("sick", "bert_sick", seqlab("prepare", "sick", "--folder", "{folder}/sick")),
            **fine_tune("section", "bert_section"),
        },
        scores=("accuracy", "gain in accuracy", "p"),
    ),
    "elmo-snips": Row(
        title="SNIPS, a bidirectional LSTM with and without a language model in both directions, pre-trained on "
        "`debian_descriptions/text`: span F1 of slots, accuracy of intents, %",
        published="slots 88.8, intents 97.0 (Goo et al. 2018)",
        runs={
            "pretraining": train_and_evaluate("bilm_small"),
            **compare_snips("slots", "", "span_f1"),
            **compare_snips("intents", "_intents", "accuracy"),
        },
        scores=("loss", "perplexity", "span F1", "gain in span F1", "accuracy", "gain in accuracy", "p"),
    ),
    "gpt-shakespeare": Row(
        title="a decoder-only Transformer, pre-trained on `debian_descriptions/text` and continued on "
        "`tiny_shakespeare`: validation perplexity per token",
        published="-",
        runs={
            "pretraining": train_and_evaluate("gpt_small"),
            "from scratch": continue_training("gpt_shakespeare", *TARGET_TOKENIZER),
            "full": continue_training("gpt_shakespeare", "--init-from", "{row}/pretraining"),
            "LoRA": continue_training("gpt_shakespeare_lora", "--init-from", "{row}/pretraining"),
            "adapters": continue_training(
                "gpt_shakespeare",
                *TARGET_TOKENIZER,
                *WHOLE_MODEL,
                "--model.adapter",
                "16",
                "--optimizer.trainable",
                "_adapter/|norm/",
            ),
            "soft prompts": continue_training("gpt_shakespeare_prompts", *TARGET_TOKENIZER, *WHOLE_MODEL),
        },
        scores=("perplexity", "trainable parameters", "seconds per step", "checkpoint MiB"),
    ),
    "t5-synopsis": Row(
        title="a Transformer, pre-trained by span corruption on `debian_descriptions/text`, then trained on "
        "`debian_descriptions/synopsis`: ROUGE",
        published="-",
        runs={
            "pretraining": train_and_evaluate("t5_small"),
            "synopsis": train_and_evaluate("debian_synopsis", *JOINT_TOKENIZER, *WHOLE_MODEL, "--steps", "4000"),
        },
        scores=("perplexity", "ROUGE-1", "ROUGE-2", "ROUGE-L"),
    ),
    "section": Row(
        title="`debian_descriptions/section`, 58 classes: accuracy, % (BERT: run the row `bert-small` first)",
        published="-",
        runs={
            "hierarchical_attention": train_and_evaluate("debian_section_hierarchical"),
            "mean_embeddings": train_and_evaluate("debian_section"),
            "hierarchical attention on BERT": train_and_evaluate(
                "bert_section_hierarchical",
                *("--initialize", "encoder/encoder", "../../bert-small/pretraining", "encoder"),
                *("--tokenizer", "runs/bert-small/pretraining/codecs/source.sentencepiece"),
            ),
            "TF-IDF, linear": (Command(("scripts/tfidf.py", "debian_descriptions/section")),),
        },
        scores=("accuracy", "accuracy (majority)"),
    ),
    "synopsis": Row(
        title="`debian_descriptions/synopsis`: ROUGE",
        published="-",
        runs={
            "hierarchical_seq2seq": train_and_evaluate("debian_synopsis_hierarchical"),
            "transformer": train_and_evaluate("debian_synopsis"),
        },
        scores=tuple(f"ROUGE-{n}{suffix}" for suffix in ("", " (first sentence)") for n in "12L"),
    ),
    "distill-multi30k": Row(
        title="Multi30k en-de, raw files, a Transformer with GELU and biases, and students of a quarter of its size, "
        "one of them without a teacher: BLEU on test2016, the teacher with beam 5, students with beam 1",
        published="-",
        runs={
            "teacher": (MULTI30K, *train_translator("multi30k_transformer", 5, *BERT_LAYERS)),
            "no teacher": train_translator("multi30k_transformer", 1, *STUDENT, *TEACHER_CODEC),
            "words": train_translator("multi30k_student", 1, "--references", "teacher", "../teacher", *TEACHER_CODEC),
            "sequences": (
                seqlab("distill", "{row}/teacher", "--out", "{row}/distilled", "--beam", "5"),
                *train_translator("multi30k_distilled", 1, *DISTILLED, *TEACHER_CODEC, split="test"),
            ),
        },
        scores=("BLEU", "sentences per second", "MiB"),
    ),
    "compress-multi30k": Row(
        title="the teacher of `distill-multi30k` (run that row first), pruned or quantized without further training: "
        "BLEU on test2016 with beam 5",
        published="-",
        runs={
            "float32": (measure_translation(TEACHER, 5),),
            **{f"{percent}% zeros": prune(percent) for percent in (30, 50, 70, 90)},
            "int8": quantize(8),
            "int4": quantize(4),
        },
        scores=("BLEU", "sentences per second", "MiB"),
    ),
    "bert-multi30k": Row(
        title="the teacher of `distill-multi30k`, trained from the encoder of `bert-small` (run both rows first): "
        "BLEU on test2016",
        published="-",
        runs={
            "from BERT": train_translator(
                "multi30k_transformer",
                5,
                *BERT_LAYERS,
                "--initialize",
                *("encoder", "../../bert-small/pretraining", "encoder/stack"),
                *("words", "../../bert-small/pretraining", "encoder/words"),
            ),
            "gain": compare_runs(TEACHER, "{row}/from-BERT{suffix}", "bleu", "test_2016_flickr"),
        },
        scores=("BLEU", "gain in BLEU", "p"),
    ),
}
