"""The site has every page of docs/, README.md as its first, and no other; `make docs` builds it."""

import re
import runpy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def pages(entry: Any) -> list[str]:
    """The files that a part of the navigation names."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]


def test_every_page_has_its_place_in_the_navigation() -> None:
    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(named) == sorted(["index.md", *(file.name for file in (ROOT / "docs").glob("*.md"))])  # README.md


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_first_pages_links_lead_to_pages_of_the_site() -> None:
    relinked = runpy.run_path(str(ROOT / "docs" / "first_page.py"))["relinked"]
    links = re.findall(r"\]\(([^)\s#]+)", relinked((ROOT / "README.md").read_text()))
    assert len(links) > 10
    assert [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()] == []
