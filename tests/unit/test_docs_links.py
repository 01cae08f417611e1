"""The prose of the house holds together: links lead somewhere, and every page can be found.

Source of the anchor rule: GitHub's rendering of headings (lower case, punctuation dropped, spaces
to hyphens, a number for a repetition).
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
INDEX = ROOT / "docs" / "README.md"

_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2[^\n]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)[^`].*?\1", re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_NAMED_FILE = re.compile(r"`((?:kmstool|tests|scripts|benchmarks|requirements)/[A-Za-z0-9_./-]+)`")


def links(page: Path) -> Iterator[str]:
    """Every relative link of a page, as written; links to other sites are left out."""
    text = _CODE.sub("", _FENCE.sub("", page.read_text("utf-8")))
    for target in _LINK.findall(text) + _REFERENCE.findall(text):
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings give."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text("utf-8"))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def faults(page: Path) -> list[str]:
    """What is wrong with the links of one page, a line each."""
    wrong = []
    for link in links(page):
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_relative_to(ROOT):
            wrong.append(f"{link} leads out of the repository")
        elif not target.exists():
            wrong.append(f"{link} does not exist")
        elif fragment and (target.suffix != ".md" or fragment not in anchors(target)):
            wrong.append(f"{link}: there is no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert faults(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = set(_NAMED_FILE.findall(_FENCE.sub("", page.read_text("utf-8"))))

    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_under_docs_can_be_reached_from_its_index() -> None:
    reached: set[Path] = set()
    to_read = [INDEX]
    while to_read:
        page = to_read.pop()
        reached.add(page)
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file() and target not in reached:
                to_read.append(target)
            elif target.is_file():
                reached.add(target)  # an example

    folder = ROOT / "docs"
    files = {
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not re.search(r"/(\.|__pycache__)", str(path.relative_to(folder.parent)))
    }

    assert sorted(str(path.relative_to(ROOT)) for path in files - reached) == []


def test_no_page_names_a_place_of_one_machine_or_a_package_index() -> None:
    private = re.compile(r"/(?:work|root|home/\w+)/|pypi\.org|pythonhosted|crates\.io|npmjs")

    assert [
        f"{page.relative_to(ROOT)}: {found}"
        for page in PAGES
        for found in private.findall(page.read_text("utf-8"))
    ] == []


def test_the_check_itself_finds_a_dead_link_a_dead_heading_and_a_way_out(tmp_path: Path) -> None:
    page = ROOT / "docs" / "README.md"
    bad = tmp_path / "bad.md"
    bad.write_text(
        "[a](gone.md) [b](#nothing) [c](https://example.org/x)\n"
        "`[d](code.md)`\n```\n[e](fence.md)\n```\n# A `heading`, twice\n# A heading twice\n"
    )

    assert list(links(bad)) == ["gone.md", "#nothing"]
    assert anchors(bad) == {"a-heading-twice", "a-heading-twice-1"}
    assert len(faults(bad)) == 2
    assert page in PAGES
