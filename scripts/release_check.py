"""Build the wheel and the sdist, check their metadata, install each without the repository, and run them.

    python scripts/release_check.py [--dependencies FOLDER] [--outdir FOLDER]

With `--dependencies`, packages are taken from this `site-packages` folder instead of the index, which takes seconds.
Needs `build` and `twine`.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).parent.parent
#: Trains a network for a moment, quantizes, exports and runs the file.
SMOKE = """
import pathlib

import keras, numpy as np
import tensorflow_quantization as tq
from tensorflow_quantization.inspection.runtime import runtime_report

origin = tq.__file__
assert "site-packages" in origin and not origin.startswith(ROOT), f"imported from {origin}"
assert pathlib.Path(origin).with_name("py.typed").is_file(), "py.typed is not packaged"
x, y = np.random.rand(64, 12, 12, 3).astype("float32"), np.random.randint(0, 4, 64)
inputs = keras.Input((12, 12, 3))
hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(inputs))
model = keras.Model(inputs, keras.layers.Dense(4)(hidden))
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, verbose=0)
quantized = tq.quantize_model(model, target="onnxruntime")
tq.calibrate(quantized, x, verbose=0)
tq.export_onnx(quantized, "model.onnx", verify_with=x)
print(runtime_report("model.onnx", runtime="onnxruntime"))
model.save("float.keras")
np.save("data.npy", x)
"""


def run(*command: object, cwd: pathlib.Path = ROOT, environment: dict[str, str] | None = None) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, env=environment, check=True)


def try_out(archive: pathlib.Path, folder: pathlib.Path, dependencies: pathlib.Path | None) -> None:
    """Install the archive into a new environment, and use it from a folder outside of the repository."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if dependencies:
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", archive, environment=environment)
        # Last on the path, and without its .pth files: an editable installation of the package there is not seen.
        pth = next((folder / "env" / "lib").glob("python*/site-packages")) / "dependencies.pth"
        pth.write_text(f"{dependencies}\n")
    else:
        extras = f"{archive}[tensorflow,onnxruntime]"
        run(python, "-m", "pip", "install", "--quiet", extras, environment=environment)
    run(python, "-c", f"ROOT = {str(ROOT)!r} + '/'\n{SMOKE}", cwd=folder, environment=environment)
    command = folder / "env" / "bin" / "tensorflow-quantization"
    run(command, "--help", cwd=folder, environment=environment)
    options = ("--target", "onnxruntime", "--data", "data.npy", "-o", "quantized.onnx")
    run(command, "quantize", "float.keras", *options, cwd=folder, environment=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dependencies", type=pathlib.Path, help="site-packages with Keras, TensorFlow, ONNX Runtime")
    parser.add_argument("--outdir", type=pathlib.Path, help="keeps the archives; default: they are deleted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        built = arguments.outdir or folder / "dist"
        run(sys.executable, "-m", "build", "--outdir", built, ROOT)
        archives = sorted(built.iterdir())
        run(sys.executable, "-m", "twine", "check", "--strict", *archives)
        for archive in archives:
            place = folder / archive.suffix.strip(".")
            place.mkdir()
            try_out(archive, place, arguments.dependencies)
            print(f"{archive.name} installs and runs")


if __name__ == "__main__":
    main()
