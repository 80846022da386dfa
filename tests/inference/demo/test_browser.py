"""The demo as a user meets it: in Chromium, with mouse, finger and keyboard."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from torch.nn import functional as F

from mnist_lightning import SimpleCNN
from mnist_lightning.data.image_schema import MNIST_SCHEMA
from mnist_lightning.data.mnist import fetch, idx, registry
from mnist_lightning.data.pixels import as_images, normalise
from mnist_lightning.inference.demo.command import make_server
from mnist_lightning.inference.demo.server import PageServer
from mnist_lightning.inference.network import TrainedNetwork
from tests.conftest import skip_without_packages

pytestmark = pytest.mark.slow

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

Stroke = list[tuple[int, int]]  # across and down, in pixels of the 280×280 paper
ZERO: Stroke = [
    (140, 50), (100, 75), (85, 120), (85, 165), (105, 215), (140, 232), (180, 210), (198, 160), (195, 110), (175, 70),
    (140, 50),
]  # fmt: skip
THREE: Stroke = [
    (85, 75), (110, 52), (150, 48), (185, 65), (190, 95), (170, 120), (135, 132), (175, 145), (198, 175), (192, 210),
    (160, 232), (115, 232), (82, 210),
]  # fmt: skip
SEVEN: Stroke = [(70, 60), (140, 60), (205, 60), (180, 110), (150, 170), (130, 230)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """The demo, with a network trained on 3,000 MNIST images within seconds."""
    raw = fetch.fetch(registry.MNIST, tmp_path_factory.mktemp("data"), source="bundled")
    split = idx.read_split(raw / "train-images-idx3-ubyte", raw / "train-labels-idx1-ubyte")
    images, labels = (torch.from_numpy(np.array(array[:3000])) for array in split)
    torch.manual_seed(0)
    network = SimpleCNN()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(2):
        for batch in torch.randperm(len(labels)).view(-1, 50):
            optimizer.zero_grad()
            inputs = normalise(as_images(images[batch]), MNIST_SCHEMA.mean, MNIST_SCHEMA.std)
            torch.autograd.backward(F.cross_entropy(network(inputs), labels[batch]))
            optimizer.step()
    trained = TrainedNetwork(network.eval(), MNIST_SCHEMA, Path("digits.ckpt"), epoch=1)
    with make_server(trained, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if not (CHROMIUM and DRIVER):
        skip_without_packages("chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--window-size=1000,700",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, server: PageServer) -> webdriver.Chrome:
    """The page, freshly opened, in a window as on a desk."""
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.get(address(server))
    wait_until_ready(chromium)
    return chromium


def address(server: PageServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/"


def draw(page: webdriver.Chrome, stroke: Stroke, kind: str = "mouse") -> None:
    paper = page.find_element(By.ID, "drawing")
    scale = paper.rect["width"] / 280
    actions = ActionBuilder(page, mouse=PointerInput(kind, kind), duration=20)
    for number, (across, down) in enumerate(stroke):
        actions.pointer_action.move_to(paper, round((across - 140) * scale), round((down - 140) * scale))
        if number == 0:
            actions.pointer_action.pointer_down()
    actions.pointer_action.pointer_up()
    actions.perform()


def label(page: webdriver.Chrome) -> str:
    return page.find_element(By.ID, "label").text


def wait_for_label(page: webdriver.Chrome, expected: str) -> None:
    WebDriverWait(page, 30, poll_frequency=0.05).until(
        lambda page: label(page) == expected, f"the page does not show {expected}"
    )


def wait_until_ready(page: webdriver.Chrome) -> None:
    WebDriverWait(page, 30, poll_frequency=0.05).until(lambda page: len(page.find_elements(By.CLASS_NAME, "bar")) == 10)


def network_input(page: webdriver.Chrome) -> list[int]:
    """What the lower canvas shows: the red channel of its 28×28 pixels."""
    script = "const c = document.getElementById('seen'); return [...c.getContext('2d').getImageData(0,0,28,28).data]"
    pixels: list[int] = page.execute_script(script)
    return pixels[::4]


def bars(page: webdriver.Chrome) -> list[float]:
    """The length of each bar, as a fraction of its track."""
    script = "return [...document.querySelectorAll('.bar')].map(b => b.offsetWidth / b.parentElement.clientWidth)"
    lengths: list[float] = page.execute_script(script)
    return lengths


@pytest.mark.parametrize(("stroke", "digit"), [(ZERO, "0"), (THREE, "3"), (SEVEN, "7")])
def test_a_digit_drawn_with_the_mouse_is_recognised(page: webdriver.Chrome, stroke: Stroke, digit: str) -> None:
    draw(page, stroke)
    wait_for_label(page, digit)
    lengths = bars(page)
    assert max(range(10), key=lengths.__getitem__) == int(digit)
    # A bar's length is in whole pixels of a track of some 170.
    assert sum(lengths) == pytest.approx(1, abs=10 * 0.5 / 170)
    values = [element.text for element in page.find_elements(By.CSS_SELECTOR, ".value")]
    assert sum(float(value.removesuffix(" %")) for value in values) == pytest.approx(100, abs=10 * 0.05)
    assert page.find_element(By.CSS_SELECTOR, ".top .label").text == digit
    assert max(network_input(page)) > 200


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_an_unsure_prediction_is_marked(
    page: webdriver.Chrome, server: PageServer, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    about, kind = server.pages["/network"]
    about = json.dumps(json.loads(about) | {"unsure_below": threshold}).encode()
    monkeypatch.setitem(server.pages, "/network", (about, kind))
    page.refresh()
    wait_until_ready(page)
    mark = page.find_element(By.ID, "unsure")
    assert not mark.is_displayed()
    draw(page, SEVEN)
    wait_for_label(page, "7")
    assert mark.is_displayed() == (threshold > 1)


def test_predictions_appear_while_the_pen_is_still_down(page: webdriver.Chrome) -> None:
    paper = page.find_element(By.ID, "drawing")
    ActionChains(page).move_to_element(paper).click_and_hold().move_by_offset(0, 60).perform()
    WebDriverWait(page, 30).until(lambda page: label(page) != "…")
    ActionChains(page).release().perform()


@pytest.mark.parametrize("with_key", [False, True])
def test_clearing_leaves_an_empty_page(page: webdriver.Chrome, with_key: bool) -> None:
    draw(page, SEVEN)
    wait_for_label(page, "7")
    if with_key:
        ActionChains(page).send_keys(Keys.ESCAPE).perform()
    else:
        page.find_element(By.ID, "clear").click()
    wait_for_label(page, "…")
    assert not any(network_input(page))
    assert not any(bars(page))
    draw(page, THREE)
    wait_for_label(page, "3")


def test_a_finger_draws_on_a_phone_that_shows_drawing_and_prediction_without_scrolling(
    page: webdriver.Chrome, server: PageServer
) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    page.get(address(server))
    wait_until_ready(page)
    draw(page, THREE, kind="touch")
    wait_for_label(page, "3")
    width, scrolled = page.execute_script("return [document.documentElement.scrollWidth, window.scrollY]")
    assert width <= 390, "nothing is cut off at the side"
    assert scrolled == 0, "drawing does not scroll the page"
    last_bar = page.find_elements(By.CSS_SELECTOR, "#bars li")[-1].rect
    assert last_bar["y"] + last_bar["height"] <= 844
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_a_digit_can_be_drawn_with_the_keyboard_alone(page: webdriver.Chrome) -> None:
    keys = ActionChains(page).send_keys(Keys.TAB)
    for key in (*[Keys.ARROW_LEFT] * 6, Keys.SPACE, *[Keys.ARROW_RIGHT] * 12, *[Keys.ARROW_DOWN] * 16, Keys.SPACE):
        keys = keys.send_keys(key)
    keys.perform()
    assert page.switch_to.active_element.get_attribute("id") == "drawing"
    wait_for_label(page, "7")
    ActionChains(page).send_keys(Keys.TAB).perform()
    assert page.switch_to.active_element.get_attribute("id") == "clear"
    ActionChains(page).send_keys(Keys.ENTER).perform()
    wait_for_label(page, "…")


def test_the_page_reports_a_lost_server_and_recovers(page: webdriver.Chrome) -> None:
    draw(page, SEVEN)
    wait_for_label(page, "7")
    page.set_network_conditions(offline=True, latency=0, throughput=0)
    draw(page, [(60, 250), (61, 250)])
    wait_for_label(page, "no reply")
    assert not any(bars(page))
    page.set_network_conditions(offline=False, latency=0, throughput=-1)
    page.find_element(By.ID, "clear").click()
    draw(page, SEVEN)
    wait_for_label(page, "7")


def test_nothing_is_loaded_from_elsewhere_and_the_browser_logs_no_error(
    page: webdriver.Chrome, server: PageServer
) -> None:
    for kind in ("performance", "browser"):
        page.get_log(kind)  # what was before
    page.get(address(server))
    wait_until_ready(page)
    draw(page, SEVEN)
    wait_for_label(page, "7")
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url.removeprefix(address(server)) for url in asked} == {"", "page.css", "page.js", "network", "digit"}
    assert page.get_log("browser") == []
