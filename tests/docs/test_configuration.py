"""The page of all settings is what the schema and conf/ say now."""

import re
import runpy
from pathlib import Path

from fpt.config import keys

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
PRINTED: str = runpy.run_path(str(PAGE.with_suffix(".py")))["page"]()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == PRINTED, "python docs/configuration.py > docs/configuration.md"


def test_every_key_and_option_has_a_line_that_says_what_it_is() -> None:
    rows = re.findall(r"^\| `([\w.-]+)` \|(.*)\|$", PRINTED, re.MULTILINE)
    cells = {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in rows}
    assert list(keys.helps()) == list(keys.settings())
    for key, help in keys.helps().items():
        assert cells[key][-1].replace("\\|", "|").replace("&lt;", "<") == help
        assert all(cells[key][:2]), key
    for group in keys.GROUPS:
        for option in keys.group_options(group):
            assert re.search(rf"`{option}`(: \S|,| )", PRINTED), option
