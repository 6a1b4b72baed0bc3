"""Laws of tasks: the contents of batches, and splitting them by rows."""

import functools
from typing import Any

import jax
import numpy as np

from seqlab import catalogue
from seqlab.codecs.codec import Codecs, as_row
from seqlab.codecs.label import Label
from seqlab.codecs.numbers import Numbers
from seqlab.codecs.sentencepiece import SentencePiece, train_sentencepiece
from seqlab.codecs.symbols import Symbols
from seqlab.config import Batching, Experiment, Text
from seqlab.data.corpus import Corpus
from seqlab.data.plans import Plan
from seqlab.data.streams import Streams
from seqlab.data.task import Task
from seqlab.distributed.devices import fill_rows, fit_rows
from seqlab.laws.equality import require, require_close, require_equal
from seqlab.layers.nesting import field_names, readers_of, with_fields
from seqlab.runs.parameters import init_model_parameters
from seqlab.types import Context, Reference, Tagger


def tiny_corpus(task: Task) -> tuple[Corpus, Codecs, list[dict[str, str]]]:
    """Returns a corpus of 11 examples of different lengths, its codecs, and the examples."""
    columns = task.columns
    labels_words = isinstance(columns.get("label"), Symbols) and isinstance(columns["source"], SentencePiece)
    make_text = {
        ("source", SentencePiece): lambda n: f"{'a b ' * n}c\nb",
        ("second", SentencePiece): lambda n: f"{n} c{' a' * (n % 4)}",
        ("question", SentencePiece): lambda n: f"{n} c{' a' * (n % 4)}",
        ("answer", SentencePiece): lambda n: "a b c"[2 * (n % 2) :],
        ("target", SentencePiece): lambda n: f"{'x ' * (n % 3)}yz {n}",
        ("label", Label): lambda n: "xyz"[n % 3],
        ("source", Symbols): lambda n: " ".join("abc"[(n + i) % 3] for i in range(n)),
        ("label", Symbols): lambda n: " ".join("xyz"[(n * i) % 3] for i in range(2 * n + 2 if labels_words else n)),
        ("source", Numbers): lambda n: " ".join(f"{n}.{i}" for i in range(2 * n)),
        ("target", Numbers): lambda n: f"-{n}.5",
    }
    examples = [{name: make_text[name, type(codec)](n) for name, codec in task.columns.items()} for n in range(1, 12)]
    fitted = {
        Label: Label(("x", "y", "z")),
        Symbols: Symbols(("a", "b", "c", "x", "y", "z")),
    }
    codecs = {
        name: tiny_tokenizer(codec.reserved, "bpe" if labels_words else "char")
        if isinstance(codec, SentencePiece)
        else fitted.get(type(codec), codec)
        for name, codec in task.columns.items()
    }
    values: dict[str, np.ndarray] = {}
    offsets: dict[str, np.ndarray] = {}
    for column, codec in codecs.items():
        rows = [as_row(row, codec) for row in codec.encode([example[column] for example in examples])]
        values[column] = np.concatenate(rows)
        offsets[column] = np.cumsum([0, *map(len, rows)])
    return Corpus(values, offsets), codecs, examples


@functools.cache
def tiny_tokenizer(reserved: tuple[str, ...] = (), kind: str = "char") -> SentencePiece:
    texts = ["a b c xyz yz 0 1 2 3 4 5 6 7 8 9", *(["some words to merge"] if kind == "bpe" else [])]
    return train_sentencepiece(texts * 20, Text(kind, 300 + len(reserved)), reserved)


def tiny_plan(task: Task, corpus: Corpus) -> Plan:
    return task.plan(corpus, Batching(tokens=140, buckets=3, max_length=60, max_ratio=99.0))


def targets_are_the_next_tokens(task: Task) -> None:
    """The targets of a batch are its texts, each followed by EOS, and the prefix is the targets shifted right after
    BOS. In a stream the targets are the whole text except its first token.
    """
    corpus, codecs, examples = tiny_corpus(task)
    tokenizer = codecs["target"]
    texts = [example["target"] for example in examples]
    decoded_texts: list[str] = []
    streams: dict[int, list[int]] = {}
    plan = tiny_plan(task, corpus)
    for batch_plan in plan.batches(0, None):
        batch = task.collate(corpus, batch_plan, codecs)
        require(len(batch.targets) == batch_plan.row_count, "a batch has the wrong number of rows")
        require_equal(batch.weights > 0, batch.prefix.mask, "nonzero weights and the mask of the prefix")
        marks = batch.prefix.mask if batch.prefix.segments is None else batch.prefix.segments
        for i, mark in ((i, mark) for i, row in enumerate(marks) for mark in np.unique(row[row > 0])):
            target, prefix = batch.targets[i][marks[i] == mark], batch.prefix.ids[i][marks[i] == mark]
            require_equal(prefix[1:], target[:-1], "prefix and shifted targets")
            if isinstance(plan, Streams):
                streams.setdefault(i, []).extend(target.tolist())
            else:
                require(prefix[0] == tokenizer.bos, "a prefix does not start with BOS")
                require(target[-1] == tokenizer.eos, "targets do not end with EOS")
                decoded_texts.append(tokenizer.decode(target.tolist()))
    if streams:
        stream_tokens = [token for row in sorted(streams) for token in streams[row]]
        require_equal(
            stream_tokens, tokenizer.encode(["\n".join(texts)])[0][1:], "the targets of a stream and the text"
        )
    else:
        require(sorted(decoded_texts) == sorted(texts), "the targets are not the texts")


def targets_are_the_labels(task: Task) -> None:
    """The targets of a batch are the classes of its documents. Documents are complete, and sentences are numbered."""
    corpus, codecs, examples = tiny_corpus(task)
    for batch_plan in tiny_plan(task, corpus).batches(0, None):
        batch = task.collate(corpus, batch_plan, codecs)
        require(batch.weights.sum() == len(batch_plan.indices), "a row that fills up the batch has weight")
        for i, index in enumerate(batch_plan.indices):
            mask, example = batch.inputs.mask[i], examples[index]
            sentences, ids = batch.inputs.sentences[i][mask], batch.inputs.ids[i][mask]
            ends = np.flatnonzero(ids == codecs["source"].newline)
            require_equal(np.flatnonzero(np.diff(sentences)), ends, "the ends of sentences and the newlines")
            decoded_sentences = [
                codecs["source"].decode(ids[sentences == n].tolist()) for n in range(sentences[-1] + 1)
            ]
            require(decoded_sentences == example["source"].split("\n"), "the sentences differ from the document")
            require(codecs["label"].decode([int(batch.targets[i])]) == example["label"], "the class is wrong")


def targets_are_the_tags(task: Task) -> None:
    """The targets of a batch are the labels, one per symbol, and the inputs are the symbols."""
    corpus, codecs, examples = tiny_corpus(task)
    for batch_plan in tiny_plan(task, corpus).batches(0, None):
        batch = task.collate(corpus, batch_plan, codecs)
        require_equal(batch.weights > 0, batch.inputs.mask, "nonzero weights and the mask of the inputs")
        for i, index in enumerate(batch_plan.indices):
            for name, ids in (("source", batch.inputs.ids), ("label", batch.targets)):
                decoded = codecs[name].decode(ids[i][batch.inputs.mask[i]].tolist())
                require(decoded == examples[index][name], f"a {name} is wrong")


def targets_are_the_numbers(task: Task) -> None:
    """The targets of a batch are the numbers of the target, and the inputs are the numbers of the source, by
    position.
    """
    corpus, codecs, examples = tiny_corpus(task)
    for batch_plan in tiny_plan(task, corpus).batches(0, None):
        batch = task.collate(corpus, batch_plan, codecs)
        require(batch.weights.sum() == len(batch_plan.indices), "a row that fills up the batch has weight")
        for i, index in enumerate(batch_plan.indices):
            source, target = (np.array(examples[index][name].split(), np.float32) for name in ("source", "target"))
            require_equal(batch.inputs.values[i][batch.inputs.mask[i]].ravel(), source, "the numbers of a source")
            require_equal(batch.targets[i], target[0], "the number of a target")


def decoding_reads_what_training_reads(task: Task) -> None:
    """The request for a text has the same source, sentences and first prompt token as in a training batch."""
    corpus, codecs, examples = tiny_corpus(task)
    for batch_plan in tiny_plan(task, corpus).batches(0, None):
        batch = task.collate(corpus, batch_plan, codecs)
        for i, index in enumerate(batch_plan.indices):
            (request,) = task.requests(codecs["source"].encode([examples[index]["source"]]), codecs, 0)
            mask = batch.inputs.mask[i]
            require_equal(request.source, batch.inputs.ids[i][mask], "the source's ids")
            require_equal(request.sentences, batch.inputs.sentences[i][mask], "the sentences of the source's tokens")
            require_equal(request.prompt, batch.prefix.ids[i, :1], "the prompt")


def every_example_comes_once_an_epoch(task: Task) -> None:
    """The batches of an epoch contain each example, or each token of a stream, exactly once. Their order depends only
    on seed and epoch.
    """
    corpus, codecs, _ = tiny_corpus(task)
    plan = tiny_plan(task, corpus)
    orders = [[batch_plan.indices.tolist() for batch_plan in plan.batches(7, epoch)] for epoch in (0, 0, 1)]
    require(orders[0] == orders[1], "the order of an epoch is not reproducible")
    require(orders[0] != orders[2], "two epochs have the same order")
    if isinstance(plan, Streams):
        for epoch in (0, 1, None):
            weights = [
                task.collate(corpus, batch_plan, codecs).weights.sum() for batch_plan in plan.batches(7, epoch)
            ]
            require(sum(weights) == plan.tokens, f"an epoch has {sum(weights)} of {plan.tokens} tokens")
        return
    for order in (*orders, [batch_plan.indices.tolist() for batch_plan in plan.batches(7, None)]):
        seen = sorted(i for indices in order for i in indices)
        require(seen == list(range(len(corpus))), f"an epoch has the examples {seen}")


def rows_come_apart(task: Task) -> None:
    """Rows of a batch that are collated separately equal the rows of the whole batch; missing rows are filled up."""
    corpus, codecs, _ = tiny_corpus(task)
    for batch_plan in tiny_plan(task, corpus).batches(7, 0):
        batch = task.collate(corpus, batch_plan, codecs)
        whole = jax.tree.leaves(fill_rows(batch, 8))
        for begin in range(3):
            selected = np.arange(begin, len(whole[0]), 3)
            part = task.collate(corpus, batch_plan.only(selected), codecs)
            for part_leaf, whole_leaf in zip(jax.tree.leaves(part), whole, strict=True):
                require_equal(
                    fit_rows(part_leaf, len(selected)), whole_leaf[selected], "rows of a batch, collated separately"
                )


def corruption_follows_the_draw(task: Task) -> None:
    """Equal seeds and epochs corrupt a text equally, so that a resumed run sees the same texts. Others corrupt it
    differently. In evaluation the corruption is always the same.
    """
    corpus, codecs, _ = tiny_corpus(task)
    batch_plan = max(tiny_plan(task, corpus).batches(7, 0), key=lambda batch_plan: sum(batch_plan.shape))

    def leaves(draw: Any) -> list[np.ndarray]:
        return jax.tree.leaves(task.collate(corpus, batch_plan, codecs, draw))

    def agree(first: Any, second: Any) -> bool:
        return all(map(np.array_equal, leaves(first), leaves(second)))

    require(agree((3, 1), (3, 1)), "two batches of one epoch differ")
    require(agree(None, None), "two batches of an evaluation differ")
    for draw in ((3, 2), (4, 1)):
        require(not agree((3, 1), draw), "batches do not depend on the seed or the epoch")


def filled_rows_weigh_nothing(task: Task) -> None:
    """Rows that fill up a batch to a multiple of the number of devices do not change the sums of the loss."""
    corpus, codecs, _ = tiny_corpus(task)
    model = catalogue.without_sizes(with_fields(models_for(task)[0], dropout=0.0))
    model = catalogue.resolve(Experiment(model, task, None), codecs).model
    batch = task.collate(corpus, tiny_plan(task, corpus).batches(0, None)[0], codecs)
    params = init_model_parameters(model, 0)
    references = {"teacher": Reference(model, params)}  # for tasks that need a teacher
    context = Context(jax.random.key(0), references=references)
    sums = jax.jit(lambda params, batch: jax.tree.leaves(task.loss(model, params, batch, context)[:3]))
    require_close(sums(params, fill_rows(batch, 8)), sums(params, batch), "sums of the loss with added rows")


def models_for(task: Task) -> list[Any]:
    """Returns the TINY models that a task can train."""
    models = [catalogue.module("models", name).TINY for name in catalogue.names("models")]
    return [m for m in models if isinstance(m, task.model) and reads_columns(m, task) and has_classes(m, task)]


def has_classes(model: Any, task: Task) -> bool:
    """Returns whether the classes of a tagger are labels if the task has labels, and tokens if it has none."""
    return not isinstance(model, Tagger) or ("classes" in field_names(model)) == ("label" in task.columns)


def reads_columns(model: Any, task: Task) -> bool:
    """Returns whether a model reads only columns of a task, including the source if the task has one."""
    columns = {reader.column for reader in readers_of(model).values()}
    return columns <= task.columns.keys() and ("source" in columns or "source" not in task.columns)
