"""The pages of the documentation, and the blocks in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "benchmarks/README.md", "changes/README.md", "examples/README.md")] + [*(ROOT / "docs").rglob("*.md")]
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Block(NamedTuple):
    language: str
    text: str
    line: int
    answer: str | None
    """The text block that follows, with nothing in between: what this one prints."""


_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = list(_FENCED.finditer(text))
    out = []
    for match, behind in zip(found, [*found[1:], None], strict=False):
        answers = behind is not None and behind[1] == "text" and not text[match.end() : behind.start()].strip()
        out.append(Block(match[1], match[2], text.count("\n", 0, match.start()) + 2, behind[2] if behind and answers else None))
    return out


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def section(page: Path, heading: str) -> str:
    """From the line with this heading up to the next of its level."""
    text = page.read_text(encoding="utf-8")
    level = heading.split()[0]
    behind = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^{level} ", behind, maxsplit=1, flags=re.MULTILINE)[0]


def table_rows(text: str) -> list[list[str]]:
    """The cells of every table row in the text, heads and rulers left out."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rulers = [n for n, row in enumerate(rows) if all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    return [row for n, row in enumerate(rows) if n not in rulers and n + 1 not in rulers]
