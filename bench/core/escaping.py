"""Text from anywhere escaped: it is shown as text, whatever it holds, in each format by one function."""

from __future__ import annotations

import json
import re
import unicodedata

HIDDEN = ("Cc", "Cs")
"""Unicode categories of what is not text: controls, and halves of surrogate pairs."""
TURNING = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c\u2028\u2029")
"""Characters that turn the direction of writing, or end a line."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet computes."""
PICTURES = 0x2400
"""Unicode's pictures of the control characters."""
PLAIN = r"\x20-\x7e"
"""Characters that need no second look, in a regular expression; nearly all are, and reports are long."""

_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_<>|~&#$"})
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "†": r"\textsuperscript{\dag}",
        "±": r"$\pm$",
        "↓": r"$\downarrow$",
        "|": r"\textbar{}",
    }
)


def visible(text: str, keep: str = "") -> str:
    """The text with a visible character in place of each that a terminal obeys or that hides others.

    Args:
        text: any text.
        keep: control characters that stay, such as line ends.
    """
    return re.sub(f"[^{PLAIN}]", lambda found: found[0] if found[0] in keep else _shown(found[0]), text)


def line(text: str) -> str:
    """The same on one line: line ends and tabs become spaces."""
    return visible(" ".join(re.split(r"[\t\n\v\f\r]+", text)))


def markdown(text: str) -> str:
    """A text in GitHub-flavoured Markdown without links, images, emphasis, code, HTML, mathematics, mentions or boxes to tick."""
    escaped = line(text).translate(_MARKDOWN)
    escaped = re.sub(r"^\[(?=[ xX]\] )", r"\\[", escaped)  # a box to tick, at the start of an item of a list
    escaped = re.sub(r"\](?=[(\[:])", r"\\]", escaped)  # a link, an image or a definition of one
    escaped = re.sub(r"(?<=\w)(?=://)", r"\\", escaped)  # an address on its own is a link, too
    return re.sub(r"(?i)(www)\.", r"\1\\.", re.sub(r"(?<!\w)@(?=\w)", r"\\@", escaped))


def latex(text: str) -> str:
    """A text in LaTeX without commands; one that begins a row of a table is not an argument of the row before."""
    escaped = line(text).translate(_LATEX)
    escaped = re.sub("-(?=-)", "-{}", escaped)  # two hyphens, as of --limit, are not a dash
    return "{}" + escaped if escaped.startswith(("[", "*")) else escaped


def cell(text: str) -> str:
    """A text in a cell of a CSV file, which a spreadsheet does not compute; a quote goes before what looks like a formula."""
    shown = visible(text, keep="\n")
    return f"'{shown}" if text.startswith(FORMULA) or shown.startswith(FORMULA) else shown


def json_text(text: str) -> str:
    """JSON, in whose strings characters that a terminal obeys or that hide others are written as escapes, which mean the same."""
    return re.sub(rf"[^\n{PLAIN}]", lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character if _shown(character) == character else json.dumps(character)[1:-1]


def _shown(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(PICTURES + code)
    if code == 0x7F:
        return "\u2421"
    if character in TURNING or unicodedata.category(character) in HIDDEN:
        return "\ufffd"
    return character
