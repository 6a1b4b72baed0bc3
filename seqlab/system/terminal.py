"""Text as a terminal shows it: what moves no cursor, in columns of equal width."""

from collections.abc import Mapping, Sequence


def printable(text: str) -> str:
    """Text that moves no cursor: what no terminal shows is written as Python does."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes: ideographs take two, combining marks none."""
    from rich.cells import cell_len

    return cell_len(text)


def filled(text: str, width: int) -> str:
    """The text with blanks behind it."""
    return text + " " * (width - width_of(text))


def grid(lines: Mapping[str, Sequence[str]], width: int, indent: int = 0) -> list[str]:
    """Lines of cells one below the other, each begun by its name; cut, where they are longer than `width`, between
    the same cells, into several blocks with an empty line between them.
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
    found: list[str] = []
    for block in blocks:
        found += [""] if found else []
        for i, name in enumerate(lines):
            row = " ".join(filled(cells[i], size) for size, cells in block)
            found.append((filled(" " * indent + name, margin) + row).rstrip())
    return found
