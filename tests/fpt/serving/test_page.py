"""The page in a real browser: it loads nothing else, asks, shows what came, and takes no text for HTML."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fpt.tasks.predict_input import raw_example
from tests.browser import NEEDED, started
from tests.fpt.serving.conftest import HOSTILE, Here

pytestmark = NEEDED


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as driver:
        yield driver


def test_a_person_asks_and_is_answered(browser: Any, here: Here) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select
    from selenium.webdriver.support.ui import WebDriverWait

    def shown() -> str:
        return str(browser.find_element(By.ID, "answer").text)

    def asked(text: str) -> str:
        before = browser.find_element(By.ID, "answer").get_attribute("innerHTML")
        browser.execute_script("arguments[0].value = arguments[1]", area, text)  # keys of long texts take seconds
        browser.find_element(By.TAG_NAME, "button").click()
        wait.until(lambda driver: driver.find_element(By.ID, "answer").get_attribute("innerHTML") != before)
        return shown()

    wait = WebDriverWait(browser, 60)
    browser.get(here.url)
    assert browser.title == "fpt: boolq, mnli on tiny"
    area = browser.find_element(By.ID, "text")
    assert area.get_attribute("value") == f"{HOSTILE} boolq"
    Select(browser.find_element(By.ID, "prompt")).select_by_value("mnli")
    assert area.get_attribute("value") == f"{HOSTILE} mnli"
    text = "hypothesis: The lamp is red. premise: The lamp is blue."
    (wanted,) = here.mixed.answer([raw_example(text)._replace(group="mnli")])
    assert asked(text).startswith((wanted.answer or "(nothing)") + "\nprobability ")
    assert "tokens of the text were too many, and cut" in asked("lamp " * 200)
    assert asked("x" * 2500) == "the body has more than 2,000 bytes"
    events = [json.loads(row["message"])["message"] for row in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert {url for url in urls if not url.startswith("data:")} == {f"{here.url}/", f"{here.url}/predict"}
    assert [row for row in browser.get_log("browser") if "413" not in row["message"]] == []
    width = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width == 0
