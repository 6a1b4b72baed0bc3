"""Training of SentencePiece vocabularies."""

import io
from collections.abc import Iterable, Iterator

import sentencepiece

from seqlab.config import Text
from seqlab.data.tokenizers import Tokenizer
from seqlab.system.errors import SeqlabError, Stopped
from seqlab.system.progress_bar import progress


def train_tokenizer(texts: Iterable[str], text: Text) -> Tokenizer:
    """SentencePiece with byte fallback, trained on `texts`; the same texts give the same model.

    Text is not normalized: decoding restores the encoded text, except runs of blanks and blanks at the ends of lines.
    With characters as tokens, these are restored too.
    """
    if text.size < 300:  # where a tokenizer is given, the size does not matter
        raise SeqlabError(f"text.size is {text.size}: give 300 or more: 256 bytes, 4 special tokens, some text")
    output = io.BytesIO()
    with progress(f"training a tokenizer ({text.kind}, {text.size})", None) as advance:
        raised: list[BaseException] = []  # by the texts: the trainer would replace it by its own error

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
                normalization_rule_name="identity",
                add_dummy_prefix=text.kind != "char",
                remove_extra_whitespaces=text.kind != "char",
                max_sentence_length=1 << 20,
                hard_vocab_limit=text.kind == "bpe",
                pad_id=Tokenizer.pad,
                bos_id=Tokenizer.bos,
                eos_id=Tokenizer.eos,
                unk_id=Tokenizer.unk,
                minloglevel=2,
            )
        except RuntimeError as error:
            if raised:
                raise raised[0] from None
            reason = str(error).rsplit(") ", 1)[-1].strip()
            raise SeqlabError(
                f"no {text.kind} vocabulary of {text.size} entries could be trained: {reason}; try another text.size"
            ) from None
    return Tokenizer(output.getvalue())
