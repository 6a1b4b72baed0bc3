"""A hierarchical encoder of words and sentences, and a decoder with attention to both (Li et al. 2015).

For dialogue, see Serban et al. (2016). The scores of the two levels of attention are added before the softmax, so
that the weight of a word includes the weight of its sentence (Nallapati et al. 2016, section 2.4).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from seqlab.layers.attention import Alignment, masked_softmax
from seqlab.layers.attentive_decoder import Attend, AttentiveDecoder, AttentiveGenerator
from seqlab.layers.embed import check_tie, read_source
from seqlab.layers.hierarchy import Pool, members, segments_of
from seqlab.layers.recurrent import Bidirectional
from seqlab.readers.words import Words
from seqlab.system.checks import check_minimum
from seqlab.system.errors import SeqlabError
from seqlab.types import Tokens


class HierarchicalSeq2Seq(AttentiveGenerator):
    """Maps a document or the turns of a dialogue to a text. In a config, leave the vocabulary sizes at 0: they
    are set from the tokenizer.
    """

    reader: nn.Module = Words()
    vocabulary: int = 0
    """Size of the vocabulary; 0: set from the tokenizer."""
    cell: str = "gru"
    """Type of recurrent cell: rnn, irnn, lstm or gru."""
    dim: int = 512
    """Width of the embeddings and of the decoder, and total width of the two directions of each encoder."""
    sentences: int = 32
    """Maximum number of sentences of a source; later sentences are merged into the last one."""
    dropout: float = 0.2
    """Dropout rate."""
    tie: str = "all"
    """Shared embedding tables: "all" (source, target and output), "target" (target and output) or "none".
    "all" needs a joint vocabulary."""
    dtype: str = "float32"
    """Data type of the operands of matrix products with parameters; everything else is float32."""

    @property
    def shares_table(self) -> bool:
        return self.tie == "all"

    def setup(self):
        check_tie(self.tie, self.reader, self.vocabulary)
        if self.dim % 2:
            raise SeqlabError(f"the width must be even for the two directions of an encoder, not {self.dim}")
        check_minimum("sentences", self.sentences, 1)
        dim, dtype = self.dim, self.dtype
        self.word_encoder = Bidirectional(self.cell, 1, dim, dim // 2, self.dropout, dtype)
        self.pool = Pool(dim, dtype)
        self.sentence_encoder = Bidirectional(self.cell, 1, dim, dim // 2, self.dropout, dtype)
        self.word_alignment = Alignment("additive", dim, dim, dtype)
        self.sentence_alignment = Alignment("additive", dim, dim, dtype)
        tie = self.tie != "none"
        self.decoder = AttentiveDecoder(self.vocabulary, self.cell, dim, dim, True, self.dropout, tie, dtype)

    def encode_memory(self, inputs: Tokens, *, train: bool = False) -> tuple[Any, Any]:
        """Returns the memory and the state of the decoder before the first step."""
        x, mask = read_source(self.reader, inputs, self.dim, self.decoder.embed if self.shares_table else None)
        x, _ = self.word_encoder(x, mask, segments=segments_of(inputs), train=train)
        parts = members(inputs, self.sentences)
        sentences, ends = self.sentence_encoder(self.pool(x, parts), parts.any(-1), train=train)
        memory = {
            "words": self.word_alignment.keys(x),
            "sentences": self.sentence_alignment.keys(sentences),
            # The value of a word includes its sentence.
            "values": x + jnp.einsum("bns,bnd->bsd", parts, sentences),
            "parts": parts,
        }
        return memory, self.decoder.begin(jnp.concatenate([side[0] for side in ends[-1]], axis=-1))

    def attend(self, memory: Any) -> Attend:
        """Returns a function that attends to words, with scores that include the score of their sentence."""

        def attend(query: Float[Array, "B K D"]) -> tuple[Float[Array, "B K D"], Float[Array, "B K P"]]:
            by_sentence = self.sentence_alignment.scores(query, memory["sentences"])
            scores = self.word_alignment.scores(query, memory["words"])
            scores += jnp.einsum("bns,bkn->bks", memory["parts"], by_sentence)
            weights = masked_softmax(scores, memory["parts"].any(1)[:, None])
            return jnp.einsum("bks,bse->bke", weights, memory["values"]), weights

        return attend


TINY = HierarchicalSeq2Seq(Words(vocabulary=9), vocabulary=7, dim=8, sentences=4, tie="target")
VARIANTS = (TINY.clone(cell="lstm", dim=16, tie="none"),)
