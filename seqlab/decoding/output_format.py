"""TODO decoding.output_format."""

import json
import math
from typing import NamedTuple

from seqlab.decoding.alignments import word_links
from seqlab.decoding.decoded_text import DecodedText


class Format(NamedTuple):
    """How decoded texts are written: a text a line, or `nbest` lines "line ||| text ||| score" each, lines counted
    from 0; " ||| score" behind a text if `scores`; alignments "pharaoh", " ||| i-j ..." behind it, or "json", a line
    an object of all that is known.
    """

    nbest: int = 0
    scores: bool = False
    alignments: str | None = None

    @property
    def lines_each(self) -> int:
        """How many lines there are for a line of input."""
        return max(self.nbest, 1)

    def line(self, number: int, one: DecodedText) -> str:
        text = one.text.replace("\n", " ")
        if self.alignments == "json":
            scores = {"score": one.score, "log_prob": one.log_prob}
            known = {"line": number, "text": text}
            known |= {name: value if math.isfinite(value) else None for name, value in scores.items()}
            if one.alignment is not None:
                source, target, best, shares = one.alignment
                links = [[i, j, round(share, 4)] for j, (i, share) in enumerate(zip(best, shares, strict=True))]
                known |= {"source": source, "target": target, "alignment": links}
            return json.dumps(known, ensure_ascii=False)
        parts = [str(number), text] if self.nbest else [text]
        if self.nbest or self.scores:
            parts.append(f"{one.score:.4f}")
        if self.alignments:
            links = word_links(one.alignment) if one.alignment is not None else []
            parts.append(" ".join(f"{i}-{j}" for i, j in links))
        return " ||| ".join(parts)


PLAIN = Format()
