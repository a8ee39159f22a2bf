"""Kinds of files: the network of PyPI's package magika, from the first and last 1,024 bytes to one of 214 kinds."""

from __future__ import annotations

import json
import os
import pathlib
import sysconfig

import keras
import numpy as np
from keras import layers

from .network import CACHE, TrainedNetwork, UnavailableError, written_whole
from .packages import pypi

#: Where files are looked for. What a machine has there differs: the first choice stays in the cache.
FOLDERS = ("/usr/share", "/usr/lib", sysconfig.get_path("stdlib"))
#: Kinds, as magika names them, by the end of a file's name.
KINDS = {
    ".py": "python", ".pyc": "pythonbytecode", ".js": "javascript", ".html": "html", ".css": "css", ".xml": "xml",
    ".json": "json", ".yaml": "yaml", ".toml": "toml", ".rst": "rst", ".md": "markdown", ".pm": "perl", ".sh": "shell",
    ".php": "php", ".sql": "sql", ".c": "c", ".cmake": "cmake", ".png": "png", ".gif": "gif", ".svg": "svg",
    ".gz": "gzip", ".so": "elf", ".jar": "jar", ".woff2": "woff2", ".ttf": "ttf", ".pdf": "pdf",
}  # fmt: skip
#: Files of a kind, half of them for calibration.
FILES_PER_KIND = 32
#: Bytes of either end, and of what is read to strip white space from.
END, BLOCK = 1024, 4096
#: Stands where a file has no more bytes.
PADDING = 256


def magika_network() -> TrainedNetwork:
    """Its inputs are files of this machine, 0 to 256 as int32 of shape (n, 2048); the end of a name is the label."""
    folder = pypi("magika", "1.0.3") / "magika" / "models" / "standard_v3_3"
    model = magika_model()
    load(model, folder / "model.onnx")
    kinds = json.loads((folder / "config.min.json").read_text())["target_labels_space"]
    inputs, names = machine_files()
    order = np.random.default_rng(0).permutation(len(inputs) // 2)
    labels = np.array([kinds.index(name) for name in names], "int64")
    return TrainedNetwork("magika", model, inputs[::2][order][:256], inputs[1::2][order], labels[1::2][order])


def magika_model() -> keras.Model:
    """The ONNX file's network; its one-hot bytes times a matrix are an Embedding, and its softmax is left out.

    Its probabilities are within 2e-6 of float64's. The ONNX file's own are within 1.4e-4 in ONNX Runtime: it computes
    the variance as E[x²] - E[x]², which cancels.
    """
    inputs = keras.Input((2 * END,), dtype="int32", name="bytes")
    x = layers.Embedding(PADDING + 1, 64, name="Dense_0")(inputs)
    x = layers.Reshape((512, 256))(layers.Activation(gelu)(x))
    x = layers.LayerNormalization(axis=1, epsilon=1e-6, name="LayerNorm_0")(x)
    x = layers.Activation(gelu)(layers.Conv1D(512, 5, name="Conv_0")(x))
    x = layers.GlobalMaxPooling1D()(x)
    x = layers.LayerNormalization(epsilon=1e-6, name="LayerNorm_1")(x)
    return keras.Model(inputs, layers.Dense(214, name="Dense_1")(x), name="magika")


@keras.saving.register_keras_serializable(package="benchmarks")
def gelu(x):
    """With the tanh, as the network was trained."""
    return keras.ops.gelu(x, approximate=True)


def load(model: keras.Model, path: pathlib.Path) -> None:
    """Give the layers the weights of the ONNX file, whose constants are found by layer and shape."""
    import onnx

    constants = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}

    def constant(end: str, *shape: int) -> np.ndarray:
        (value,) = (v for name, v in constants.items() if name.endswith(end) and v.shape == shape)
        return value

    embedding = constant("Const:0", 257, 64) + constant("Dense_0/Reshape:0", 1, 1, 64)[0]
    kernel = constant("Conv_0/transpose_3:0", 512, 256, 5, 1)[..., 0].transpose(2, 1, 0)
    (bias,) = (v for name, v in constants.items() if name.startswith("const_fold") and v.shape == (1, 512, 1))
    model.get_layer("Dense_0").set_weights([embedding])
    model.get_layer("Conv_0").set_weights([kernel, bias.ravel()])
    model.get_layer("Dense_1").set_weights([constant("", 512, 214), constant("Dense_1/Reshape:0", 1, 214)[0]])
    for index, shape in enumerate([(1, 512, 1), (1, 512)]):
        weights = [constant(f"LayerNorm_{index}/Reshape_{part}:0", *shape).ravel() for part in (2, 3)]
        model.get_layer(f"LayerNorm_{index}").set_weights(weights)


def machine_files() -> tuple[np.ndarray, np.ndarray]:
    """The inputs, int32 of shape (n, 2048), and the kinds, strings of shape (n,), of files of each kind in turn."""
    path = CACHE / "magika-files.npz"
    if not path.exists():
        found = find_files()
        if len(found) < 2 * 256:
            raise UnavailableError(f"{' '.join(FOLDERS)} have {len(found)} files of known kinds, 512 are needed")
        inputs = np.stack([tokens(content) for content, _ in found])
        with written_whole(path) as partial:
            np.savez_compressed(partial, inputs=inputs, names=np.array([kind for _, kind in found]))
    with np.load(path) as data:
        return data["inputs"], data["names"]


def find_files() -> list[tuple[bytes, str]]:
    """Contents and kinds: of each kind an even number, evenly spaced among the sorted paths, all different."""
    paths: dict[str, list[str]] = {end: [] for end in KINDS}
    for folder in FOLDERS:
        for root, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                paths.get(os.path.splitext(name)[1], []).append(os.path.join(root, name))
    found = []
    for end, candidates in paths.items():
        step = max(1, len(candidates) // (2 * FILES_PER_KIND))  # twice as many as needed: some are empty or alike
        contents = {content: None for content in map(read, candidates[::step]) if len(content) >= 64}
        count = min(len(contents), FILES_PER_KIND) // 2 * 2
        found += [(content, KINDS[end]) for content in list(contents)[:count]]
    return found


def read(path: str) -> bytes:
    """The first and last bytes of a file, or the whole small file; nothing of what cannot be read or is a link."""
    if os.path.islink(path):
        return b""
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError:
        return b""
    return content if len(content) <= 2 * BLOCK else content[:BLOCK] + content[-BLOCK:]


def tokens(content: bytes) -> np.ndarray:
    """What the network sees of a file: both ends without their white space, padded towards the middle."""
    first, last = content[:BLOCK].lstrip()[:END], content[-BLOCK:].rstrip()[-END:]
    padded = np.full(2 * END, PADDING, "int32")
    padded[: len(first)] = np.frombuffer(first, np.uint8)
    padded[2 * END - len(last) :] = np.frombuffer(last, np.uint8)
    return padded
