"""Words to sentences to a decoder with attention over both (Li et al. 2015; for dialogue, Serban et al. 2016).

The two levels of attention are added before the softmax, so that a word counts as its sentence does (Nallapati et
al. 2016, section 2.4).
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
    """From a document, or the turns of a dialogue, to a text. The vocabulary sizes are 0 in a config."""

    reader: nn.Module = Words()
    vocabulary: int = 0
    cell: str = "gru"
    """rnn, irnn, lstm or gru."""
    dim: int = 512
    """Width of embeddings, of the decoder, and of both directions of an encoder together."""
    sentences: int = 32
    """Most sentences of a source; what follows counts to the last one."""
    dropout: float = 0.2
    tie: str = "all"
    """"all": source, target and output share one table (a joint vocabulary); "target": target and output; "none"."""
    dtype: str = "float32"
    """What the operands of products with parameters are rounded to; all else is float32."""

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
        """The memory, and the decoder's state before the first step."""
        x, mask = read_source(self.reader, inputs, self.dim, self.decoder.embed if self.shares_table else None)
        x, _ = self.word_encoder(x, mask, segments=segments_of(inputs), train=train)
        parts = members(inputs, self.sentences)
        sentences, ends = self.sentence_encoder(self.pool(x, parts), parts.any(-1), train=train)
        memory = {
            "words": self.word_alignment.keys(x),
            "sentences": self.sentence_alignment.keys(sentences),
            # A word brings its sentence along.
            "values": x + jnp.einsum("bns,bnd->bsd", parts, sentences),
            "parts": parts,
        }
        return memory, self.decoder.begin(jnp.concatenate([side[0] for side in ends[-1]], axis=-1))

    def attend(self, memory: Any) -> Attend:
        """Attention over the words, those of a sentence that fits well before others."""

        def attend(query: Float[Array, "B K D"]) -> tuple[Float[Array, "B K D"], Float[Array, "B K P"]]:
            by_sentence = self.sentence_alignment.scores(query, memory["sentences"])
            scores = self.word_alignment.scores(query, memory["words"])
            scores += jnp.einsum("bns,bkn->bks", memory["parts"], by_sentence)
            weights = masked_softmax(scores, memory["parts"].any(1)[:, None])
            return jnp.einsum("bks,bse->bke", weights, memory["values"]), weights

        return attend


TINY = HierarchicalSeq2Seq(Words(vocabulary=9), vocabulary=7, dim=8, sentences=4, tie="target")
VARIANTS = (TINY.clone(cell="lstm", dim=16, tie="none"),)
