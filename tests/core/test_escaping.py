"""Texts from strangers are shown as texts in every format."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.markup import escape

from bench.cli.sentences import say
from bench.core import escaping
from bench.core.terminal import Terminal

ANY = st.text(st.characters(), max_size=40)


def printed(text: str, **how: object) -> str:
    stream = io.StringIO()
    Terminal(file=stream, force_terminal=True, color_system="truecolor", width=200).print(text, **how)  # type: ignore[arg-type]
    return stream.getvalue()


@given(ANY)
def test_a_terminal_gets_no_control_characters(text: str) -> None:
    for made in (escaping.visible(text), escaping.line(text), escaping.markdown(text), escaping.latex(text)):
        assert not any(unicodedata.category(each) in ("Cc", "Cs") for each in made)
    made = printed(escape(text), style="", highlight=False)
    assert not any(unicodedata.category(each) in ("Cc", "Cs") for each in made.replace("\n", ""))


def test_escapes_and_markup_are_shown() -> None:
    assert escaping.visible("a\x1b[31mred\x07\x9b2J\u202eb") == "a␛[31mred␇\ufffd2J\ufffdb"
    shown = printed("\x1b]0;title\x07", markup=False, highlight=False)
    assert shown == "␛]0;title\n"  # rich itself leaves the bell out
    assert printed(escape("[bold]x[/] :smile: [/nothing]"), highlight=False) == "[bold]x[/] :smile: [/nothing]\n"


def test_brackets_in_a_sentence_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    say("run [v2]/r[/x] is there", "done")
    assert capsys.readouterr().err == "done: run [v2]/r[/x] is there\n"


def test_an_ordinary_text_stays() -> None:
    text = "Ünïcode 漢字 👩\u200d🚀 3.5 a-b (c)"
    assert (escaping.visible(text), escaping.markdown(text), escaping.latex(text), escaping.cell(text)) == (text,) * 4


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("[x](http://evil)", r"[x\](http\://evil)"),
        ("![x](y)", r"![x\](y)"),
        ("[x]: http://evil", r"[x\]: http\://evil"),
        ("<script>", r"\<script\>"),
        ("a | b", r"a \| b"),
        ("a\n# b", r"a \# b"),
        ("`code` $x$ ~~y~~ &lt;", r"\`code\` \$x\$ \~\~y\~\~ \&lt;"),
        ("@someone www.evil.org", r"\@someone www\.evil.org"),
        ("dpo [50.1, 60.2]", "dpo [50.1, 60.2]"),
        ("[ ] after win rates", r"\[ ] after win rates"),
        ("[x] done", r"\[x] done"),
    ],
)
def test_markdown(text: str, made: str) -> None:
    assert escaping.markdown(text) == made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("^^5cinput", r"\textasciicircum{}\textasciicircum{}5cinput"),
        ("a\n\nb % c", r"a b \% c"),
        ("[2cm] x", "{}[2cm] x"),
        ("* x", "{}* x"),
        ("bench run --limit 8", "bench run -{}-limit 8"),
        ("a---b", "a-{}-{}-b"),
    ],
)
def test_latex(text: str, made: str) -> None:
    assert escaping.latex(text) == made


@given(ANY)
@example("=cmd|' /C calc'!A0")
def test_a_cell_is_never_a_formula(text: str) -> None:
    made = escaping.cell(text)
    assert not made.startswith(escaping.FORMULA)


@given(ANY)
def test_json_means_the_same(text: str) -> None:
    made = escaping.json_text(json.dumps(text, ensure_ascii=False))
    assert json.loads(made) == text
    assert not any(unicodedata.category(each) in ("Cc", "Cs") for each in made)
