"""A text codec with the pieces of a SentencePiece model (Kudo & Richardson 2018), trained on the training data."""

import functools
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seqlab.codecs.codec import Codec, Read, TextCodec, as_text
from seqlab.config import Text
from seqlab.system.errors import SeqlabError, Stopped
from seqlab.system.progress_bar import progress


@dataclass(frozen=True)
class SentencePiece(TextCodec):
    """A SentencePiece model and its special ids. The lines of a text are encoded separately."""

    model: bytes = b""
    reserved: tuple[str, ...] = ()
    """Additional special tokens that no text contains, such as [MASK]."""

    pad = 0
    bos = 1
    eos = 2
    unk = 3

    @functools.cached_property
    def processor(self) -> Any:
        processor = open_processor(self.model)
        special_ids = processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()
        if processor.piece_to_id("<0x0A>") == self.unk:
            raise SeqlabError("this SentencePiece model has no byte fallback: train it with --byte_fallback=true")
        if special_ids != (self.pad, self.bos, self.eos, self.unk):
            raise SeqlabError(
                f"this SentencePiece model must have the ids 0, 1, 2, 3 for pad, bos, eos, unk, not {special_ids}: "
                "train it with --pad_id=0 --bos_id=1 --eos_id=2 --unk_id=3"
            )
        return processor

    @property
    def size(self) -> int:
        return self.processor.get_piece_size()

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(map(self.processor.id_to_piece, range(self.size)))

    @functools.cached_property
    def newline(self) -> int:
        """The id of the newline byte."""
        return self.processor.piece_to_id("<0x0A>")

    def shared(self, text: Text) -> bool:
        return text.joint

    def fit(self, read: Read, text: Text) -> "SentencePiece":
        return train_sentencepiece((as_text(value) for value in read(text.sample)), text, self.reserved)

    def check(self, fitted: Codec) -> None:
        TextCodec.check(self, fitted)
        for name in self.reserved:
            self.reserved_id(name, fitted)

    def reserved_id(self, name: str, fitted: Codec) -> int:
        """Returns the id of a reserved token. Raises `SeqlabError` for a fitted codec without it."""
        if not isinstance(fitted, SentencePiece) or not fitted.processor.is_control(
            fitted.processor.piece_to_id(name)
        ):
            raise SeqlabError(f"the tokenizer has no special token {name}: leave out --tokenizer to train a new one")
        return fitted.processor.piece_to_id(name)

    def encode(self, values: Sequence[str]) -> list[list[int]]:
        """Returns ids without BOS and EOS, computed on all cores."""
        parts = [text.split("\n") for text in values]
        lines = [line for part in parts for line in part]
        rows = iter(self.processor.encode(lines, num_threads=os.cpu_count() or 1))
        encoded = []
        for part in parts:
            ids = next(rows)
            for _ in part[1:]:
                ids.append(self.newline)
                ids.extend(next(rows))
            encoded.append(ids)
        return encoded

    def decode(self, row: Sequence[int]) -> str:
        """Returns the text of a row, ignoring special ids. Raises for an id outside the vocabulary."""
        lines: list[list[int]] = [[]]
        for i in row:
            if i == self.newline:
                lines.append([])
            elif i not in (self.pad, self.bos, self.eos):
                lines[-1].append(i)
        # An unknown word of a word vocabulary keeps SentencePiece's blank symbol, which is replaced here.
        texts = [text.removeprefix("\u2581").replace("\u2581", " ") for text in self.processor.decode(lines)]
        return "\n".join(texts).strip()

    def save(self) -> bytes:
        return self.model

    @classmethod
    def load(cls, content: bytes, place: str) -> "SentencePiece":
        codec = cls(content)
        check_model(codec, place)
        return codec


def open_processor(model: bytes) -> Any:
    """Returns the processor of a serialized SentencePiece model. Raises `SeqlabError` if it is not a model."""
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        raise SeqlabError("not a SentencePiece model") from None


def check_model(codec: Any, place: str) -> None:
    """Raises `SeqlabError`, which names `place`, for a codec with a malformed SentencePiece model."""
    if not codec.model:  # SentencePiece accepts empty bytes as a model
        raise SeqlabError(f"{place} is empty")
    try:
        for i in range(codec.processor.get_piece_size()):
            codec.processor.id_to_piece(i)
    except UnicodeDecodeError as error:
        raise SeqlabError(f"{place}: a piece is not UTF-8 ({error.reason})") from None
    except SeqlabError as error:
        raise SeqlabError(f"{place}: {error}") from None


def train_sentencepiece(texts: Iterable[str], text: Text, reserved: Sequence[str] = ()) -> SentencePiece:
    """Returns a codec with byte fallback, trained on `texts`. The result is deterministic.

    Unless `text.lowercase` is set, text is not normalized: decoding restores the encoded text, except for repeated
    blanks and blanks at the start or end of a line. With characters as tokens, only white space at the start or end
    of a text is not restored. SentencePiece reads U+2581 as a blank.
    """
    import sentencepiece

    if text.size < 300:  # not checked in the config, where the size is irrelevant if a tokenizer is given
        raise SeqlabError(
            f"text.size must be at least 300, not {text.size}: 256 bytes and 4 special tokens take up 260, and the "
            "text needs the rest"
        )
    output = io.BytesIO()
    with progress(f"training a tokenizer ({text.kind}, {text.size})", None) as advance:
        raised: list[BaseException] = []  # raised by `texts`; the trainer would replace it by another error

        def lines_of_texts() -> Iterator[str]:
            try:
                for example in texts:
                    advance()
                    yield from example.split("\n")
            except (Exception, KeyboardInterrupt, Stopped) as error:
                raised.append(error)
                raise

        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines_of_texts(),
                model_writer=output,
                model_type=text.kind,
                vocab_size=text.size,
                character_coverage=1.0,
                byte_fallback=True,
                normalization_rule_name="nfkc_cf" if text.lowercase else "identity",
                add_dummy_prefix=text.kind != "char",
                remove_extra_whitespaces=text.kind != "char",
                max_sentence_length=1 << 20,
                hard_vocab_limit=text.kind == "bpe",
                control_symbols=list(reserved),
                pad_id=SentencePiece.pad,
                bos_id=SentencePiece.bos,
                eos_id=SentencePiece.eos,
                unk_id=SentencePiece.unk,
                minloglevel=2,
            )
        except RuntimeError as error:
            if raised:
                raise raised[0] from None
            raise SeqlabError(vocabulary_advice(text, str(error))) from None
    return SentencePiece(output.getvalue())


def vocabulary_advice(text: Text, reason: str) -> str:
    """Returns an error message with the size that works, given the message of SentencePiece."""
    message = f"text.size {text.size} does not fit the training data:"
    if match := re.search(r"value <= (\d+)", reason):
        return f"{message} set it to at most {match[1]}"
    if match := re.search(r"(\d+) vs (\d+)", reason):
        return f"{message} set it to at least {match[2]}, the number of characters, bytes and special tokens"
    return f"cannot train a {text.kind} vocabulary of {text.size} entries: {reason.rsplit(') ', 1)[-1].strip()}"


CODEC = SentencePiece
