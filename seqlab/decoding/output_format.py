"""The format of the lines that decoded texts are written as."""

import json
import math
from typing import Any, NamedTuple

from seqlab.decoding.alignments import word_links
from seqlab.decoding.decoded_text import DecodedText


class Format(NamedTuple):
    """The format of decoded texts: one text per line, or `nbest` lines "line ||| text ||| score" each, with lines
    counted from 0. With `scores`, " ||| score" follows each text. Alignments "pharaoh" append " ||| i-j ..."; "json"
    writes each line as an object with all values.
    """

    nbest: int = 0
    scores: bool = False
    alignments: str | None = None

    @property
    def lines_each(self) -> int:
        """Number of output lines per input line."""
        return max(self.nbest, 1)

    def line(self, number: int, decoded: DecodedText) -> str:
        text, alignment = decoded.text.replace("\n", " "), decoded.alignment
        if self.alignments == "json":
            return json.dumps(self.json_object(number, text, decoded), ensure_ascii=False)
        parts = [str(number), text] if self.nbest else [text]
        if self.nbest or self.scores:
            parts.append(f"{decoded.score:.4f}")
        if self.alignments:
            links = word_links(alignment) if alignment is not None else []
            parts.append(" ".join(f"{i}-{j}" for i, j in links))
        return " ||| ".join(parts)

    def json_object(self, number: int, text: str, decoded: DecodedText) -> dict[str, Any]:
        values = {"line": number, "text": text}
        for name, value in (("score", decoded.score), ("log_prob", decoded.log_prob)):
            values[name] = value if math.isfinite(value) else None
        if self.alignments is not None:
            source, target, best, shares = decoded.alignment or ([], [], [], [])
            links = [[i, j, round(share, 4)] for j, (i, share) in enumerate(zip(best, shares, strict=True))]
            values |= {"source": source, "target": target, "alignment": links}
        return values


PLAIN = Format()
