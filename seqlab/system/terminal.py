"""Formatting of text for a terminal: escaping of control characters, and aligned columns."""

from collections.abc import Mapping, Sequence


def printable(text: str) -> str:
    """Returns the text with unprintable characters escaped as in Python."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def width_of(text: str) -> int:
    """Returns the number of terminal columns of a text: ideographs take two, combining marks none."""
    from rich.cells import cell_len

    return cell_len(text)


def pad_right(text: str, width: int) -> str:
    """Returns the text padded with blanks on the right."""
    return text + " " * (width - width_of(text))


def grid(lines: Mapping[str, Sequence[str]], width: int, indent: int = 0) -> list[str]:
    """Returns lines of aligned cells, each preceded by its name. If they are longer than `width`, they are split
    between cells into several blocks, with an empty line between blocks.
    """
    margin = indent + 2 + max(map(width_of, lines))
    columns = [(max(map(width_of, cells)), cells) for cells in zip(*lines.values(), strict=True)]
    blocks: list[list[tuple[int, tuple[str, ...]]]] = [[]]
    used = margin
    for size, cells in columns:
        if blocks[-1] and used + size > width:
            blocks.append([])
            used = margin
        blocks[-1].append((size, cells))
        used += size + 1
    rows: list[str] = []
    for block in blocks:
        rows += [""] if rows else []
        for i, name in enumerate(lines):
            row = " ".join(pad_right(cells[i], size) for size, cells in block)
            rows.append((pad_right(" " * indent + name, margin) + row).rstrip())
    return rows
