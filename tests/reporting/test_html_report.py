"""The HTML report: its errors, what it says, and the page in a real browser."""

import shutil

import keras
import numpy as np
import pytest
import small_models

from tensorflow_quantization import calibrate, export_onnx, html_report, quantize_model

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def quantized():
    keras.utils.set_random_seed(0)
    x, _ = small_models.images()
    model = small_models.residual()
    return model, calibrate(quantize_model(model, target="onnxruntime"), x, verbose=0), x


@pytest.fixture(scope="module")
def page(quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    model, quantized, x = quantized
    file = export_onnx(quantized, folder / "model.onnx")
    figures = {"top-1 accuracy": ("91.4 %", "91.5 %"), "<script>alert(1)</script>": (1, "long" * 60)}
    return html_report(
        folder / "report.html", quantized, float_model=model, data=x, file=file, metrics=figures, latency=False
    )


def test_a_report_is_one_file_without_addresses(page):
    text = page.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert len(text) < 1_000_000


def test_what_is_left_out_is_said(quantized, tmp_path):
    text = html_report(tmp_path / "report.html", quantized[1]).read_text(encoding="utf-8")
    assert "pass metrics" in text


def test_errors_leave_an_older_report(quantized, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("older")
    with pytest.raises(TypeError, match=r"Pass the path first: html_report\(path, quantized\)"):
        html_report(quantized[1], path)
    with pytest.raises(ValueError, match="There is nothing to report on"):
        html_report(path)
    with pytest.raises(FileNotFoundError, match="which file names"):
        html_report(path, quantized[1], file=tmp_path / "none.onnx")
    with pytest.raises(TypeError, match="metrics must be pairs"):
        html_report(path, quantized[1], metrics={"accuracy": 0.9})
    with pytest.raises(ValueError, match="shape"):
        html_report(path, quantized[1], float_model=quantized[0], data=np.zeros((2, 3, 3), "float32"))
    assert path.read_text() == "older"


def test_only_a_page_is_written(quantized, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("a model")
    with pytest.raises(ValueError, match=r"does not end in \.html"):
        html_report(path, quantized[1], file=path)
    assert path.read_text() == "a model"


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    driver = shutil.which("chromedriver")
    if BROWSER is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    started = webdriver.Chrome(options=options, service=service)
    yield started
    started.quit()


@pytest.mark.slow
def test_the_page_in_a_browser(page, browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    browser.set_window_size(1400, 1000)
    browser.get(page.as_uri())
    assert not browser.get_log("browser")
    assert "91.5 %" in browser.find_element(By.ID, "figures").text
    nodes = browser.find_elements(By.CSS_SELECTOR, "#viewport svg g")
    assert nodes
    hits = browser.find_element(By.ID, "hits")
    search = browser.find_element(By.ID, "search")
    search.send_keys("conv")
    found = hits.text
    assert found
    search.clear()
    search.send_keys("no such layer")
    assert hits.text != found
    # In the drawing's own scale, a small network is smaller than its frame.
    browser.execute_script("document.querySelector('#viewport').style.width = '100px'")
    viewport = browser.find_element(By.ID, "viewport")
    position = "return [arguments[0].scrollLeft, arguments[0].scrollTop]"
    before = browser.execute_script(position, viewport)
    ActionChains(browser).move_to_element(viewport).click_and_hold().move_by_offset(-30, -60).release().perform()
    assert browser.execute_script(position, viewport) != before
    light = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != light
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert not browser.get_log("browser")


@pytest.mark.slow
def test_a_report_of_300_layers_is_small_and_opens(tmp_path, browser):
    inputs = x = keras.Input((8, 8, 4))
    for _ in range(100):
        y = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, padding="same")(x))
        x = keras.layers.Add()([x, y])
    model, data = small_models.randomize(keras.Model(inputs, x)), np.random.default_rng(0).normal(size=(8, 8, 8, 4))
    quantized = calibrate(quantize_model(model, target="onnxruntime"), data.astype("float32"), verbose=0)
    file = export_onnx(quantized, tmp_path / "model.onnx")
    page = html_report(
        tmp_path / "report.html", quantized, float_model=model, data=data.astype("float32"), file=file, latency=False
    )
    assert page.stat().st_size < 5_000_000
    browser.get(page.as_uri())
    assert len(browser.find_elements("css selector", "#viewport svg g")) > 300
    timing = browser.execute_script("const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd")
    print(f"{page.stat().st_size} bytes, open after {timing:.0f} ms")
