"""The look of every page, and the only ways by which text from outside becomes HTML."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

import streamlit as st

FOLDER = Path(__file__).parent


@lru_cache
def asset(*names: str) -> str:
    """Read files of this folder, one behind the other."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


def apply_theme() -> None:
    """Lay our style sheet over Streamlit's."""
    st.html(f"<style>{asset('theme.css')}</style>")


def words(text: object) -> str:
    """Make any text harmless in HTML, and keep its direction to itself."""
    return f"<bdi>{escape(str(text))}</bdi>"


def note(text: str) -> None:
    """Write a quiet sentence."""
    st.html(f'<div class="fr-note">{escape(text)}</div>')


def title(text: str) -> None:
    """Write a heading within a page."""
    st.html(f'<div class="fr-title">{escape(text)}</div>')


def banner(text: str, more: str = "", *, name: str = "banner") -> None:
    """Write what must not be overlooked."""
    st.html(
        f'<div class="fr-banner {escape(name)}" role="status">{escape(text)} '
        f"<span>{escape(more)}</span></div>"
    )


def key_hints(keys: dict[str, str], more: str = "") -> None:
    """Say what the keys do."""
    hints = "".join(f"<kbd>{escape(key)}</kbd>{escape(does)}" for key, does in keys.items())
    st.html(f'<div class="fr-note">{hints}<i></i>{escape(more)}</div>')


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    name: str,
    numeric: frozenset[int] = frozenset(),
) -> None:
    """Draw a table of text; columns in ``numeric`` stand to the right."""

    def cell(tag: str, index: int, value: object) -> str:
        kind = ' class="num"' if index in numeric else ""
        return f"<{tag}{kind}>{words(value)}</{tag}>"

    head = "".join(cell("th", index, text) for index, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("td", index, value) for index, value in enumerate(row)) + "</tr>"
        for row in rows
    )
    st.html(
        f'<table class="fr-table {escape(name)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def figures(pairs: Iterable[tuple[str, object]], *, name: str) -> None:
    """Draw a row of numbers with what they count."""
    parts = "".join(
        f"<div><b>{escape(str(value))}</b>{escape(label)}</div>" for label, value in pairs
    )
    st.html(f'<div class="fr-figures {escape(name)}">{parts}</div>')
