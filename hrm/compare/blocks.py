"""A report as a list of blocks, written once and rendered as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """The first column is text; others are too where `words` says so, else they are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = ()
    """Columns that hold sentences, from 0."""


@dataclass(frozen=True)
class Image:
    path: Path
    caption: str


Block = Heading | Text | Bullets | Code | Table | Image

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .88rem; }
th, td { border-bottom: 1px solid #e2e2e2; padding: .3rem .7rem; vertical-align: top; }
th { text-align: left; background: #f5f5f5; }
td { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td:first-child { text-align: left; }
td.words { text-align: left; white-space: normal; min-width: 12rem; }
td.supported { color: #1f6b34; font-weight: 600; } td.refuted { color: #a01818; font-weight: 600; }
td.inconclusive { color: #666; }
td.failed, td.no { color: #a01818; font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; } figcaption { font-size: .85rem; color: #555; }
pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: .85rem; }
"""


def as_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """GitHub's Markdown; pictures are links, relative to `folder`."""
    return "\n".join(_markdown(block, folder) for block in blocks)


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}\n"
        case Text(text):
            return f"{text}\n"
        case Bullets(items):
            return "".join(f"- {item}\n" for item in items)
        case Code(lines):
            return "\n".join(["```", *lines, "```", ""])
        case Image(path, caption):
            return f"![{caption}]({path.relative_to(folder).as_posix()})\n\n*{caption}*\n"
        case Table(header, rows, words):
            left = {0, *words}
            rule = ["---" if i in left else "---:" for i in range(len(header))]
            cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            return "".join(f"| {' | '.join(line)} |\n" for line in [list(header), rule, *cells])


def as_html(blocks: Sequence[Block], title: str) -> str:
    """One page that needs no other file: pictures and style are in it."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Bullets(items):
            inside = "".join(f"<li>{html.escape(item)}</li>" for item in items)
            return f"<ul>{inside}</ul>"
        case Code(lines):
            inside = html.escape("\n".join(lines))
            return f"<pre>{inside}</pre>"
        case Image(path, caption):
            data = base64.b64encode(path.read_bytes()).decode()
            told = html.escape(caption)
            return (
                f'<figure><img src="data:image/png;base64,{data}" alt="{told}">'
                f"<figcaption>{told}</figcaption></figure>"
            )
        case Table(header, rows, words):
            top = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
            lines = "".join(f"<tr>{_cells(row, words)}</tr>" for row in rows)
            return (
                f'<div class="wide"><table><thead><tr>{top}</tr></thead>'
                f"<tbody>{lines}</tbody></table></div>"
            )


def _cells(row: Sequence[str], words: Sequence[int]) -> str:
    marked = {"supported", "refuted", "inconclusive", "failed", "no"}
    cells = []
    for i, cell in enumerate(row):
        kind = cell if cell in marked else "words" if i in words else ""
        shown = f' class="{kind}"' if kind else ""
        cells.append(f"<td{shown}>{html.escape(cell)}</td>")
    return "".join(cells)
