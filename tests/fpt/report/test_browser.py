"""The page in a real browser: nothing fails, nothing is fetched, every plot is drawn, phones fit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NEEDED, started

pytestmark = NEEDED


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as driver:
        yield driver


def opened(browser: Any, page: Path, *, width: int = 1280) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what was before is not of this page
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [360, 1280])
def test_it_opens_without_an_error_or_a_request(browser: Any, page: Path, width: int) -> None:
    opened(browser, page, width=width)
    assert browser.get_log("browser") == []
    assert browser.title == "fpt report: 3 runs"
    events = [json.loads(row["message"])["message"] for row in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_every_plot_is_drawn(browser: Any, page: Path, width: int) -> None:
    opened(browser, page, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    widths = browser.execute_script("return [...document.images].map((image) => [image.width, image.naturalWidth])")
    assert len(widths) == 4
    for shown, drawn in widths:
        assert 200 < shown <= width
        assert drawn > 100


def test_it_prints_with_every_setting(browser: Any, page: Path) -> None:
    """What is folded away on the screen stands on paper."""
    opened(browser, page)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    heights = browser.execute_script("return [...document.querySelectorAll('details pre')].map((e) => e.offsetHeight)")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(heights) == 3
    assert min(heights) > 100
