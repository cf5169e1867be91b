"""Paragraphs and tables of Markdown."""

import textwrap
from collections.abc import Iterable, Sequence

_WIDTH = 130


def paragraph(*sentences: str) -> str:
    """Sentences, or parts of them, in lines of the docs' width."""
    return textwrap.fill(" ".join(sentences), _WIDTH, break_long_words=False, break_on_hyphens=False)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose columns but the first are numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
