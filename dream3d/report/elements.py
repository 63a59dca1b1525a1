"""HTML in a dozen lines: everything is escaped unless it was made here."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PARTS = Path(__file__).parent / "parts"
VOID = frozenset({"img", "input"})


class Markup(str):
    """HTML; plain strings are text."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. `class_` and `data_x` become class and data-x; True is an attribute without value, False none."""
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value not in (False, None):
            parts.append(f'{key}="{html.escape(str(value))}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start) if name in VOID else Markup(f"{start}{joined(children)}</{name}>")


def joined(children: Iterable[object]) -> Markup:
    """One after the other; None is nothing, and sequences are taken apart."""
    pieces = []
    for child in children:
        if isinstance(child, Markup):
            pieces.append(child)
        elif isinstance(child, (list, tuple)):
            pieces.append(joined(child))
        elif child is not None:
            pieces.append(html.escape(str(child)))
    return Markup("".join(pieces))


def section(title: str, *children: object) -> Markup | None:
    """With a heading; None where there is nothing to show."""
    shown = joined(children)
    return tag("section", tag("h2", title), shown) if shown else None


def pairs(rows: Sequence[tuple[object, object]]) -> Markup | None:
    """A table of names and values; those without a value are left out."""
    known = [(name, value) for name, value in rows if value not in (None, "", {}, [])]
    return tag("table", [tag("tr", tag("th", name), tag("td", value)) for name, value in known]) if known else None


def page(
    title: str, body: Markup, charts: Sequence[Mapping[str, Any]], assets: Mapping[str, str], generator: str
) -> str:
    """The whole file: styles, scripts, data and assets inside.

    Args:
        title: of the window.
        body: markup.
        charts: what `curves.js` draws: group, title, lines of label, x and y.
        assets: GLBs as base64, by the id of their element.
        generator: who made it.
    """
    # In a script only "</script" and "<!--" are special; JSON may write the sign as an escape.
    data = json.dumps({"charts": charts}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    fills = {
        "generator": html.escape(generator),
        "title": html.escape(title),
        "style": _part("style.css"),
        "body": body,
        "data": data.replace("<", "\\u003c"),
        "assets": "\n".join(
            f'<script type="application/octet-stream" id="{html.escape(name)}">{text}</script>'
            for name, text in assets.items()
        ),
        "script": "\n".join(_part(f"{name}.js").replace('"use strict";\n', "") for name in SCRIPTS),
    }
    head, *pieces = _part("page.html").split("{{")
    filled = [head]
    for piece in pieces:
        name, _, rest = piece.partition("}}")
        filled += [fills[name], rest]
    return "".join(filled)


SCRIPTS = ("glb", "viewer", "curves", "main")


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")
