"""The page in a real Chromium: what a reader does with mouse and keyboard, without network, errors or violations of axe."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, browser
from lab import Lab, fill

from reports.citation import citation
from reports.content import Report
from reports.footnotes import footnotes
from reports.page import page, typeset
from reports.report import make_report
from reports.result_tables import comparison_tables, conclusion_tables

AXE = os.environ.get("AXE")
"""The path of axe.min.js from the npm package axe-core."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium executable on this machine"),
]

NAMES = "[...document.querySelectorAll('#numbers-1 tbody tr')].filter(row => !row.hidden).map(row => row.cells[0].textContent)"
GOLD = "[...document.querySelectorAll('#numbers-1 tbody tr')].map(row => parseFloat(row.cells[2].textContent))"
HEADING = "document.querySelectorAll('#numbers-1 th[scope=col]')[2]"
IMAGES = (
    "[...document.querySelectorAll('%s .zoom')].map(b => [b.dataset.prompt, b.dataset.of, b.querySelector('img').src])"
)
CAPTIONS = (
    "[...document.querySelectorAll('dialog figure')].filter(f => !f.hidden).map(f => f.textContent.split(':')[0])"
)
NOTES = "[...document.querySelectorAll(%r)].map(e => e.textContent)"
CHOOSE = "(() => { const choice = document.getElementById('reference'); choice.value = %r; choice.dispatchEvent(new Event('change')); })()"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The base, whose title is not its algorithm's name, and three algorithms."""
    lab = Lab(tmp_path_factory.mktemp("page") / "runs")
    fill(lab, base="Tiny")
    return lab


@pytest.fixture(scope="module")
def path(lab: Lab) -> Path:
    """A page of the base and three algorithms."""
    return written(make_report(lab.runs), lab.runs / "report.html")


def written(report: Report, target: Path) -> Path:
    """The page of a report, in a file."""
    target.write_text(page(report), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests."""
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def opened(chromium: Browser, path: Path) -> Iterator[Browser]:
    """The page, freshly loaded; afterwards it must have requested nothing else, and have said nothing."""
    chromium.requested.clear()
    chromium.open(path)
    yield chromium
    assert chromium.said == []
    assert {url for url in chromium.requested if not url.startswith("data:")} == {path.as_uri()}


def test_sorting_by_gold_and_back(opened: Browser) -> None:
    assert opened.run(NAMES) == ["Diffusion-DPO", "SFT", "SmPO"]
    opened.run(f"{HEADING}.firstElementChild.focus()")
    opened.press("Enter")
    assert opened.run(f"{HEADING}.getAttribute('aria-sort')") == "descending"
    assert opened.run(GOLD) == sorted(opened.run(GOLD), reverse=True)
    assert opened.run(NAMES)[-1] == "SFT"
    opened.press("Enter")
    assert opened.run(GOLD) == sorted(opened.run(GOLD))
    opened.press("Enter")
    assert opened.run(f"{HEADING}.getAttribute('aria-sort')") is None
    assert opened.run(NAMES) == ["Diffusion-DPO", "SFT", "SmPO"]


def test_filtering_tables_and_images(opened: Browser) -> None:
    opened.run("document.getElementById('filter').focus()")
    opened.write("sm")
    assert opened.run(NAMES) == ["SmPO"]
    assert opened.run("document.getElementById('shown').textContent") == "2 of 4 rows"  # the reference stays
    visible = "[...document.querySelectorAll('.strip li')].filter(item => !item.hidden).length"
    assert opened.run(visible) == 12 * 2


def test_another_reference(opened: Browser) -> None:
    opened.run(CHOOSE % "SFT")
    assert opened.run("document.getElementById('table-1').textContent") == "Win rate against SFT, %"
    assert opened.run(NAMES) == ["Tiny", "Diffusion-DPO", "SmPO"]
    # Scores rise by 0.1 * shift, with a noise of 0.03 against a gap of 0.06 and more, so SFT loses nearly always.
    assert min(rate for rate in opened.run(GOLD) if rate is not None) > 80
    assert opened.run("document.getElementById('plot').hidden") is True
    assert "drawn against the base alone" in opened.run("document.getElementById('no-plot').innerText")
    opened.run(CHOOSE % "Tiny")
    assert opened.run("document.getElementById('table-1').textContent") == "Win rate against the base, %"
    assert opened.run("document.getElementById('plot').hidden") is False
    assert opened.run("document.getElementById('no-plot').hidden") is True


@pytest.mark.parametrize(("choice", "row"), [("SFT", "sft"), ("SmPO", "smpo"), ("Tiny", None)])
def test_conclusions_and_notes_are_those_of_the_chosen_reference(
    opened: Browser, lab: Lab, choice: str, row: str | None
) -> None:
    opened.run(CHOOSE % "SFT")
    opened.run(CHOOSE % choice)
    report = make_report(lab.runs, against=row)
    assert opened.run(NOTES % "#notes li") == [*footnotes(report), citation(report)]
    wanted = conclusion_tables(report)
    assert opened.run(NOTES % "#conclusions h2") == [grid.title for grid in wanted]
    assert opened.run(NOTES % "#conclusions p") == [note for grid in wanted for note in grid.notes]
    for place, grid in enumerate(wanted, start=1):
        table = f"#conclusion-numbers-{place}"
        assert opened.run(NOTES % f"{table} th[scope=col]") == ["row", *grid.columns]
        assert opened.run(NOTES % f"{table} th[scope=row]") == [label for label, _ in grid.rows]
        shown = [typeset(cell.value) for _, cells in grid.rows for cell in cells]
        assert opened.run(NOTES % f"{table} .value") == shown
    for place, grid in enumerate(comparison_tables(report), start=1):  # a reference's own training metric is marked
        assert opened.run(NOTES % f"#numbers-{place} th[scope=col]") == ["row", *grid.columns]


def test_without_scripts_the_page_shows_what_it_shows_with_them(chromium: Browser, path: Path, tmp_path: Path) -> None:
    texts = "[...document.querySelectorAll('main section, #notes')].map(e => e.textContent.replace(/\\s+/g, ''))"
    chromium.open(path)
    scripted = chromium.run(texts)
    plain, count = re.subn(r"<script>.*?</script>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert count == 1
    (tmp_path / "plain.html").write_text(plain, encoding="utf-8")
    chromium.open(tmp_path / "plain.html")
    assert chromium.run(texts) == scripted


def test_groups_are_sorted_and_the_best_rank_is_first(chromium: Browser, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "runs")
    lab.base()
    for algorithm, shift in (("dpo", -0.1), ("sft", 0.6), ("smpo", -0.8)):
        for seed in range(3):
            lab.run(algorithm, seed, title=algorithm, shift=shift)
    chromium.open(written(make_report(lab.runs), tmp_path / "groups.html"))
    heading = "[...document.querySelectorAll('#conclusion-numbers-1 th[scope=col]')].find(h => h.textContent === %r)"
    column = "[...document.querySelectorAll('#conclusion-numbers-1 tbody tr')].map(r => r.cells[%d].querySelector('.value').textContent)"
    for name in ("rank", "group"):
        place = chromium.run(f"{heading % name}.cellIndex")
        before = chromium.run(column % place)
        assert before != sorted(before)
        chromium.run(f"{heading % name}.firstElementChild.click()")
        assert chromium.run(f"{heading % name}.getAttribute('aria-sort')") == "ascending"
        assert chromium.run(column % place) == sorted(before)
        chromium.run(f"{heading % name}.firstElementChild.click()")
        assert chromium.run(column % place) == sorted(before, reverse=True)
        chromium.run(f"{heading % name}.firstElementChild.click()")
        assert chromium.run(column % place) == before


def test_two_algorithms_with_one_title_are_two_references(chromium: Browser, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "runs")
    lab.base()
    for algorithm, shift in (("dpo", 0.5), ("ipo", -0.5)):
        lab.run(algorithm, shift=shift)
    chromium.open(written(make_report(lab.runs), tmp_path / "same.html"))
    for one, other in (("dpo", "ipo"), ("ipo", "dpo")):
        chromium.run(CHOOSE % f"Diffusion-DPO [{one}]")
        assert chromium.run(NAMES) == ["base", f"Diffusion-DPO [{other}]"]
        chromium.run(f"document.querySelectorAll('.strip .zoom')[{1 if other == 'dpo' else 2}].click()")
        assert chromium.run(CAPTIONS) == [f"Diffusion-DPO [{one}]", f"Diffusion-DPO [{other}]"]
        sources = chromium.run("[...document.querySelectorAll('dialog img')].map(i => i.src)")
        assert sources[0] != sources[1]
        chromium.run("document.getElementById('large').close()")


def test_an_enlarged_duel_shows_the_base_on_a_page_with_two_rows(chromium: Browser, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "runs")
    lab.base(title="Tiny")
    lab.run("dpo")
    chromium.open(written(make_report(lab.runs), tmp_path / "two.html"))
    assert chromium.run("document.getElementById('reference').options.length") == 1
    chromium.run("document.querySelectorAll('.duels .zoom')[1].click()")
    assert chromium.run(CAPTIONS) == ["Tiny", "Diffusion-DPO"]


def test_a_page_against_another_row_shows_each_name_with_its_own_images_and_numbers(
    chromium: Browser, path: Path, lab: Lab, tmp_path: Path
) -> None:
    chromium.open(path)
    own = {(prompt, label): source for prompt, label, source in chromium.run(IMAGES % ".strip")}
    assert len({(prompt, source) for (prompt, _), source in own.items()}) == len(own)
    chromium.open(written(make_report(lab.runs, against="sft"), tmp_path / "sft.html"))
    labels = ["SFT", "Tiny", "Diffusion-DPO", "SmPO"]
    strips = chromium.run(IMAGES % ".strip")
    assert [label for _, label, _ in strips] == labels * 12
    assert chromium.run("[...document.querySelectorAll('.strip .of')].map(e => e.textContent)") == labels * 12
    duels = chromium.run(IMAGES % ".duels")
    assert [label for _, label, _ in duels[::2]] == ["SFT"] * (len(duels) // 2)
    assert {label for _, label, _ in duels[1::2]} == {"Tiny", "Diffusion-DPO", "SmPO"}
    assert {(prompt, label): source for prompt, label, source in strips + duels} == own
    assert "the line at 50 % is SFT." in chromium.run("document.body.textContent")
    curves = "document.querySelector('#training + figure')"
    named = chromium.run(f"{curves}.getAttribute('aria-label')")
    assert named == "Training curves by algorithm: SFT, Diffusion-DPO, SmPO"
    assert "SFT" in chromium.run(f"{curves}.textContent")
    assert "The image of SFT, then the row's" in chromium.run("document.body.textContent")
    assert chromium.run("document.getElementById('table-1').textContent") == "Win rate against SFT, %"
    for choice, title, others in (
        ("Tiny", "the base", ["Diffusion-DPO", "SFT", "SmPO"]),
        ("Diffusion-DPO", "Diffusion-DPO", ["Tiny", "SFT", "SmPO"]),
        ("SFT", "SFT", ["Tiny", "Diffusion-DPO", "SmPO"]),
    ):
        chromium.run(CHOOSE % choice)
        assert chromium.run("document.getElementById('table-1').textContent") == f"Win rate against {title}, %"
        assert chromium.run(NAMES) == others


def test_the_gallery_by_keyboard(opened: Browser) -> None:
    opened.run("document.querySelectorAll('.strip .zoom')[1].focus()")
    opened.press("Enter")
    assert opened.run("document.getElementById('large').open") is True
    assert opened.run(CAPTIONS) == ["Tiny", "Diffusion-DPO"]
    opened.press("ArrowRight")
    assert opened.run(CAPTIONS) == ["Tiny", "SFT"]
    opened.press("ArrowLeft")
    opened.press("ArrowLeft")
    assert opened.run(CAPTIONS) == ["Tiny"]
    opened.press("Escape")
    assert opened.run("document.getElementById('large').open") is False
    assert opened.becomes("document.activeElement.dataset.of", "Tiny")  # where the arrow keys had gone


def test_images_are_whole_and_extremes_are_of_their_sign(opened: Browser) -> None:
    loaded = "[...document.querySelectorAll('.strip img')].map(i => (i.loading = 'eager', i.decode().then(() => i.naturalWidth)))"
    assert set(opened.run(f"Promise.all({loaded})")) == {64}
    signs = "[...document.querySelectorAll('.%s')].map(e => e.textContent[0])"
    assert set(opened.run(signs % "gain")) == {"+"}
    assert set(opened.run(signs % "loss")) == {"\N{MINUS SIGN}"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_no_window_is_scrolled_sideways_and_axe_finds_nothing(
    chromium: Browser, path: Path, width: int, dark: bool
) -> None:
    chromium.open(path, width=width, dark=dark)
    assert chromium.run("document.documentElement.scrollWidth <= innerWidth") is True
    if AXE is None:
        pytest.skip("AXE does not name axe.min.js; only the width was checked")
    found: Any = chromium.run(
        Path(AXE).read_text(encoding="utf-8")
        + "\n;axe.run().then(found => found.violations.map(each => [each.id, each.nodes[0].html]))"
    )
    assert found == []


def test_print_opens_what_is_folded(opened: Browser) -> None:
    opened.call("Page.printToPDF")
    assert opened.run("[...document.querySelectorAll('details')].every(each => each.open)") is True
