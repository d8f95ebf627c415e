"""The page to try a model: its answers over HTTP, and a person's clicks in Chromium."""

import base64
import contextlib
import http.client
import io
import json
import shutil
import threading
import zlib

import numpy as np
import pytest
from color_network import LABEL_MAP, ColorNetwork, draw, iou
from PIL import Image

from tfseg.data.images import MAX_PIXELS
from tfseg.data.labels import LabelMap
from tfseg.errors import InputError
from tfseg.inference.segmenter import Segmenter
from tfseg.web import answers as answers_module
from tfseg.web.answers import Answers
from tfseg.web.server import MAX_BYTES, PageServer

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


@contextlib.contextmanager
def served(label_map=LABEL_MAP, **network):
    """Yields the server and the network behind it."""
    network = ColorNetwork(**network)
    with PageServer(Answers(Segmenter(network, label_map)), 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server, network
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def page():
    with served() as both:
        yield both


def ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.headers["Content-Type"] == "application/json":
        content = json.loads(content)
    return answer, content


def png(image):
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


def picture(address):
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_an_image_gives_maps_and_another_threshold_runs_no_network(page):
    server, network = page
    image, mask = draw(150, 260)
    answer, found = ask(server, "POST", "/segment?name=a.png&labels=3,1", png(image))
    assert answer.status == 200
    assert (found["width"], found["height"], [one["id"] for one in found["labels"]]) == (260, 150, [3, 1])
    captions = [caption for caption, _ in found["labels"][0]["pictures"]]
    assert captions == ["attention", "densified attention", "probability"]
    probability = picture(dict(found["labels"][1]["pictures"])["probability"])
    assert iou(mask == 1, probability[..., 0] > 127) > 0.9
    runs = (network.encoded_images, list(network.located_batches))
    files = {}
    for threshold in (0.05, 0.5, 0.999):
        _, files[threshold] = ask(server, "GET", f"/mask.png?result={found['result']}&threshold={threshold}")
        _, drawn = ask(server, "GET", f"/mask?result={found['result']}&threshold={threshold}")
        saved = np.asarray(Image.open(io.BytesIO(files[threshold])))
        assert picture(drawn["overlay"]).shape == (150, 260, 3)
        for label in (1, 3):
            assert drawn["shares"][str(label)] == pytest.approx((saved == label).mean(), abs=1e-6)
    assert (network.encoded_images, network.located_batches) == runs
    half = Image.open(io.BytesIO(files[0.5]))
    assert half.mode == "P" and half.size == (260, 150)
    expected = Segmenter(ColorNetwork(), LABEL_MAP).segment(image, [3, 1]).label_map
    np.testing.assert_array_equal(np.asarray(half), expected)
    covered = [np.count_nonzero(Image.open(io.BytesIO(files[t]))) for t in (0.05, 0.5, 0.999)]
    assert covered[0] > covered[1] > covered[2]


def test_labels_are_predicted_where_none_are_chosen(page):
    server, _ = page
    _, found = ask(server, "POST", "/segment?name=a.png", png(draw(60, 90)[0]))
    assert [(one["id"], round(one["score"], 3)) for one in found["labels"]] == [(1, 0.9), (2, 0.9), (3, 0.9)]


def test_without_a_classifier_labels_must_be_chosen():
    with served(can_classify=False) as (server, _):
        assert ask(server, "GET", "/model")[1]["predicts"] is False
        answer, found = ask(server, "POST", "/segment?name=a.png", png(draw(60, 90)[0]))
        assert answer.status == 400 and "give labels" in found["error"]


def oversized():
    """A PNG of 1 kB that claims more pixels than are allowed."""
    data = bytearray(png(np.zeros((8, 8, 3), np.uint8)))
    data[16:24] = (MAX_PIXELS // 1000 + 1).to_bytes(4, "big") + (1000).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/segment?name=big.png", oversized(), "big.png: has 64001x1000 pixels; allowed are 64,000,000"),
        ("/segment?name=no.jpg", b"no image", "no.jpg: cannot be decoded"),
        ("/segment?name=a.png&labels=9", png(draw(9, 9)[0]), "9"),
        ("/segment?name=a.png&labels=x", png(draw(9, 9)[0]), "must be ids"),
        ("/segment?name=a.png&labels=1,1,1,1,1,1,1,1,1", png(draw(9, 9)[0]), "allowed are 8"),
    ],
)
def test_bad_requests_are_told_in_a_sentence(page, path, body, words):
    answer, content = ask(page[0], "POST", path, body)
    assert answer.status == 400 and words in content["error"]


def test_too_many_bytes_are_refused_unread(page):
    answer, content = ask(page[0], "POST", "/segment?name=a.png", None, **{"Content-Length": MAX_BYTES + 1})
    assert answer.status == 413 and "256,000,000" in content["error"]


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_other_sites_get_no_answer(page, headers):
    server, network = page
    answer, _ = ask(server, "POST", "/segment?name=a.png", png(draw(20, 20)[0]), **headers)
    assert answer.status == 403 and network.encoded_images == 0


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css"])
def test_the_page_names_no_other_host_and_browsers_are_told_to_load_none(page, path):
    answer, content = ask(page[0], "GET", path)
    assert answer.status == 200 and b"//" not in content.replace(b"\n//", b"")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page[0].server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "query", ["result=77", "result=1&threshold=2", "result=1&threshold=nan", "threshold=x"]
)
def test_masks_of_no_result_or_threshold_are_refused(page, query):
    ask(page[0], "POST", "/segment?name=a.png", png(draw(20, 20)[0]))
    assert ask(page[0], "GET", f"/mask?{query}")[0].status == 400


def test_old_results_are_dropped(page):
    results = [ask(page[0], "POST", "/segment?name=a", png(draw(20, 20)[0]))[1]["result"] for _ in range(3)]
    status = [ask(page[0], "GET", f"/mask.png?result={key}")[0].status for key in results]
    assert status == [400] + [200] * answers_module.KEPT


def test_a_port_that_is_taken_is_told(page):
    with pytest.raises(InputError, match=f"--port={page[0].server_port}: .*--port=0"):
        PageServer(page[0].answers, page[0].server_port)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium and its driver are not installed (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1100,1500"):
        options.add_argument(f"--{flag}")
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.downloads = downloads
    yield started
    started.quit()


def wait_for(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 30, 0.05).until(condition)


def test_clicks_in_a_browser(browser, tmp_path):
    label_map = LABEL_MAP.to_dict()
    label_map["name"], label_map["labels"][2]["name"] = f"colors {HOSTILE}", HOSTILE
    image, mask = draw(300, 420)
    file = tmp_path / "<b>things & so.png"
    file.write_bytes(png(image))
    bad = tmp_path / "bad.png"
    bad.write_bytes(oversized())

    def text(element):
        return browser.find_element("id", element).text

    with served(LabelMap.from_dict(label_map), image_size=192, map_size=24) as (server, network):
        browser.get(server.url)
        wait_for(browser, lambda b: b.find_element("id", "run").is_enabled())
        # Choosing a file predicts the labels and segments.
        browser.find_element("id", "file").send_keys(str(file))
        wait_for(browser, lambda b: b.find_elements("css selector", ".share"))
        assert len(browser.find_elements("css selector", ".row img")) == 9
        assert "red" in text("shares") and HOSTILE in text("shares") and "<b>things" in text("name")
        # Two labels by clicks.
        for box in browser.find_elements("css selector", "#labels input")[::2][:2]:
            box.click()
        browser.find_element("id", "run").click()
        wait_for(browser, lambda b: len(b.find_elements("css selector", ".row img")) == 6)
        wait_for(browser, lambda b: b.find_element("id", "run").is_enabled())
        # The slider moves the mask without a run of the network.
        runs, before = network.encoded_images, browser.find_element("id", "overlay").get_attribute("src")
        shown = text("shares")
        browser.find_element("id", "threshold").send_keys("\ue012" * 45)  # The left arrow key.
        wait_for(browser, lambda b: text("value") == "0.05" and text("shares") != shown)
        assert browser.find_element("id", "overlay").get_attribute("src") != before
        assert network.encoded_images == runs == 2
        wait_for(browser, lambda b: "0.05" in b.find_element("id", "save").get_attribute("href"))
        browser.find_element("id", "save").click()
        wait_for(browser, lambda b: list(browser.downloads.glob("*.png")))
        (saved,) = browser.downloads.glob("*.png")
        assert set(np.unique(np.asarray(Image.open(saved)))) == {0, 1, 3}
        browser.save_screenshot(str(tmp_path / "page.png"))
        # What predict refuses is refused here, in words.
        browser.find_element("id", "file").send_keys(str(bad))
        wait_for(browser, lambda b: "64,000,000" in text("status"))
        # No name became HTML, and nothing was asked of another host or failed.
        assert browser.title == f"colors {HOSTILE}" and not browser.find_elements(
            "css selector", "img[src=x]"
        )
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert all(name.startswith((server.url, "data:")) for name in loaded)
        refused = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert len(refused) == 1 and "400" in refused[0]
    assert iou(mask == 1, np.asarray(Image.open(saved)) == 1) > 0.5


def drag(browser, x, y, *files):
    """Drags files to a place of the page and drops them, by events of the browser itself."""
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})
    over = browser.find_element("id", "drop").get_attribute("class")
    browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": "drop", "x": x, "y": y, "data": data})
    return over


def middle(element):
    place = element.rect
    return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2


def test_a_dropped_image_is_segmented(browser, tmp_path):
    image, _ = draw(120, 200)
    (tmp_path / "first.png").write_bytes(png(image))
    (tmp_path / "second.png").write_bytes(png(image[:60]))
    with served(LABEL_MAP, image_size=96, map_size=12) as (server, network):
        browser.get(server.url)
        wait_for(browser, lambda b: b.find_element("id", "run").is_enabled())
        assert drag(browser, *middle(browser.find_element("id", "drop")), tmp_path / "first.png") == "over"
        wait_for(browser, lambda b: b.find_elements("css selector", ".share"))
        assert browser.find_element("id", "name").text == "first.png, 200 x 120 pixels"
        assert browser.find_element("id", "drop").get_attribute("class") == ""
        # Beside the field too: a browser would leave the page to show the file.
        drag(browser, *middle(browser.find_element("id", "title")), tmp_path / "second.png")
        wait_for(browser, lambda b: b.find_element("id", "name").text == "second.png, 200 x 60 pixels")
        assert browser.current_url == server.url and network.encoded_images == 2
