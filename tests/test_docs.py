"""The Python blocks of README and documentation run, one after the other, and print what the pages show."""

import ast
import doctest
import importlib
import inspect
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from docs_scripts import DOCS, docs_script
from keras import layers

import tensorflow_quantization
from tensorflow_quantization.quantizers import QuantizationScheme

run_blocks = docs_script("run_blocks")
README = DOCS.parent / "README.md"
PAGES = [page for page in [README, *sorted(DOCS.rglob("*.md"))] if run_blocks.blocks(page)]
#: Pages that begin with a trained model and data of the reader's own.
WITH_A_MODEL = {"README.md", "index.md"}
REFERENCE = sorted((DOCS / "api").glob("*.md"))


def small_cnn() -> keras.Model:
    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2)(inputs)))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def own_names(page: Path) -> dict[str, object]:
    """What the first block of a page may take as given."""
    if page.name not in WITH_A_MODEL:
        return {}
    rng = np.random.default_rng(0)
    images, labels = rng.random((64, 28, 28, 1), "float32"), rng.integers(10, size=64)
    names = {"images": images, "labels": labels, "train_images": images, "train_labels": labels}
    return {"model": small_cnn(), **names}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model has no:UserWarning")  # an entry of a spec that is only shown
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch, own_wrappers):
    monkeypatch.chdir(tmp_path)
    for block, printed in run_blocks.run(page, **own_names(page)):
        if block.shown is not None:
            assert words(printed) == words(block.shown), f"Run python docs/run_blocks.py {page}"
            if keras.backend.backend() == "tensorflow":  # each backend draws other weights from a seed
                assert numbers(printed) == pytest.approx(numbers(block.shown), rel=0.02, abs=1e-5)


_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])")
_VERSION = re.compile(r"\b\d+\.\d+\.\d+\b")


def words(text: str) -> list[str]:
    """The text without numbers, versions and the lines of tables, whose width follows the numbers."""
    text = _NUMBER.sub("#", _VERSION.sub("#", text))
    return [word for word in text.split() if set(word) != {"-"} or word == "-"]


def numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(_VERSION.sub("#", text))]


def test_the_first_lines_of_the_readme_end_in_integers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run_blocks.blocks(README)[0].code
    assert len([line for line in first.splitlines() if line.strip()]) == 4
    exec(first, own_names(README))
    report = tensorflow_quantization.runtime_report("model.onnx")
    assert report.integer_share == 1.0


def documented() -> list[str]:
    """The dotted names that the pages of the reference show."""
    return [name for page in REFERENCE for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


def resolve(name: str) -> object:
    """The object of a dotted name."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def test_every_name_in_the_reference_exists():
    for name in documented():
        resolve(name)


def test_every_public_name_is_in_the_reference():
    objects = [resolve(name) for name in documented()]
    public = {name: getattr(tensorflow_quantization, name) for name in tensorflow_quantization.__all__}
    missing = [name for name, value in public.items() if not any(value is shown for shown in objects)]
    text = "".join(page.read_text() for page in REFERENCE)
    # A version and modules have no entry of their own: the text of a page names them.
    others = [name for name in missing if inspect.ismodule(public[name]) or isinstance(public[name], str)]
    assert missing == others
    assert [name for name in others if f"`tensorflow_quantization.{name}`" not in text] == []


def test_every_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [page for page in pages if page not in navigation] == []


def examples_namespace() -> dict[str, object]:
    """What an example in a docstring may take as given, besides the public names: a model, its data and its file."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(5, name="scores")(layers.GlobalAveragePooling2D(name="pool")(x)))
    images = np.random.default_rng(0).random((32, 8, 8, 3), "float32")
    quantized = tensorflow_quantization.quantize_model(model, target="onnxruntime")
    tensorflow_quantization.calibrate(quantized, images, verbose=0)
    tensorflow_quantization.export_onnx(quantized, "model.onnx")
    public = {name: getattr(tensorflow_quantization, name) for name in tensorflow_quantization.__all__}
    own_layer = type("MyLayer", (layers.Layer,), {})
    others = {"keras": keras, "np": np, "QuantizationScheme": QuantizationScheme, "MyLayer": own_layer}
    labels = np.eye(5, dtype="float32")[np.arange(32) % 5]
    return {**public, **others, "model": model, "images": images, "labels": labels}


def with_example(names: list[str]) -> list[str]:
    return [name for name in names if ">>>" in (inspect.getdoc(resolve(name)) or "")]


@pytest.mark.slow
@pytest.mark.parametrize("name", with_example(documented()))
def test_the_example_in_the_docstring_runs(name, tmp_path, monkeypatch, own_wrappers):
    monkeypatch.chdir(tmp_path)
    public = resolve(name)
    own = vars(sys.modules[public.__module__])  # the module's own imports, then what all examples share
    test = doctest.DocTestParser().get_doctest(public.__doc__, {**own, **examples_namespace()}, name, None, None)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted and not result.failed


def said_by_the_package() -> str:
    """All strings of the package, with `...` for the values that they format."""
    strings = []
    for file in Path(tensorflow_quantization.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                strings.append("".join(p.value if isinstance(p, ast.Constant) else "..." for p in node.values))
    return "\n".join(strings)


def test_the_package_has_the_messages_that_the_page_on_troubles_explains():
    page = (DOCS / "troubleshooting.md").read_text().split("## Run")[0]
    cells = re.findall(r"^(?:\| )?(`+)(.+?)\1(?: \(| \|)", page, re.MULTILINE)
    messages = [text.replace("``", "`") for _, text in cells]
    said = said_by_the_package()
    assert len(messages) > 20
    assert [message for message in messages if message not in said] == []
