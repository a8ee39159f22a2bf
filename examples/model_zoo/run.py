"""A network of the model zoo from float to INT8: float, calibrated, trained, file; each with its accuracy.

    python examples/model_zoo/run.py mobilenetv2 --data imagenet --folder zoo

The images are in the folders `train` and `validation`, in a folder for each class; for the weights of ImageNet, its
1,000 classes under their WordNet numbers. What a step made is kept in FOLDER, and is not made again: a run that was
stopped goes on, and the training goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import keras
import numpy as np

from networks import NETWORKS, Network
from tensorflow_quantization import export_onnx, fine_tune, post_training_quantize
from tensorflow_quantization.text.tables import markdown_table

#: The steps, with what the table calls them.
STEPS = {"float": "float", "ptq": "calibrated", "qat": "trained", "file": "file, in its runtime"}
CALIBRATION_BATCHES = 8


class Images:
    """The images of a folder, preprocessed for a network: (images, labels) in batches."""

    def __init__(self, folder: pathlib.Path, network: Network, size: int, batch_size: int):
        self.folder, self.network, self.size, self.batch_size = folder, network, size, batch_size

    def __call__(self, split: str, *, shuffle: bool = False):
        """A `tf.data.Dataset` of `train` or `validation`."""
        found = keras.utils.image_dataset_from_directory(
            self.folder / split,
            image_size=(self.size, self.size),
            crop_to_aspect_ratio=True,
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=0,
            verbose=False,
        )
        return found.map(lambda x, y: (self.network.module.preprocess_input(x), y)).prefetch(2)

    @property
    def classes(self) -> int:
        return sum(path.is_dir() for path in (self.folder / "train").iterdir())


def compiled(model: keras.Model, rate: float = 1e-3) -> keras.Model:
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def float_model(network: Network, images: Images, weights: str | None, epochs: int) -> keras.Model:
    """The network with its weights of ImageNet; with a new head, or trained, where they do not fit."""
    shape = (images.size, images.size, 3)
    if weights and images.classes == 1000 and images.size == network.size:
        return compiled(network.build(weights=weights))
    body = network.build(weights=weights, input_shape=shape, include_top=False, pooling="avg")
    # Softmax in float32, whatever the policy: its values are small.
    scores = keras.layers.Dense(images.classes, activation="softmax", dtype="float32", name="predictions")(body.output)
    model = compiled(keras.Model(body.input, scores, name=body.name))
    model.fit(images("train", shuffle=True), epochs=epochs, shuffle=False, verbose=2)
    return model


def calibration(images: Images) -> np.ndarray:
    batches = images("train", shuffle=True).take(CALIBRATION_BATCHES)
    return np.concatenate([np.asarray(x, "float32") for x, _ in batches])


def trained(quantized: keras.Model, teacher: keras.Model, images: Images, epochs: int, backup: pathlib.Path):
    """The quantized network after training with the float one as teacher."""
    train = images("train", shuffle=True)
    goes_on = keras.callbacks.BackupAndRestore(str(backup))
    fine_tune(quantized, train, teacher=teacher, epochs=epochs, callbacks=[goes_on], verbose=2)
    return quantized


def accuracy(model: keras.Model, images: Images) -> float:
    return compiled(model).evaluate(images("validation"), verbose=0, return_dict=True)["accuracy"]


def runner(path: pathlib.Path, target: str) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a file: in OpenVINO if it was written for it, else in ONNX Runtime, which computes what TensorRT does."""
    if target == "openvino":
        import openvino

        compiled_file = openvino.compile_model(path, "CPU")
        return lambda x: compiled_file(x)[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    (name,) = (value.name for value in session.get_inputs())
    return lambda x: session.run(None, {name: x})[0]


def accuracy_of_file(path: pathlib.Path, target: str, images: Images) -> float:
    run, right, count = runner(path, target), 0, 0
    for x, y in images("validation"):
        right += int((run(np.asarray(x, "float32")).argmax(-1) == np.asarray(y)).sum())
        count += len(y)
    return right / count


def devices() -> AbstractContextManager:
    """All GPUs, if there are several and TensorFlow computes."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy().scope() if several else nullcontext()


def kept(path: pathlib.Path, make: Callable[[], keras.Model]) -> keras.Model:
    """The model in a file, made and saved if there is none."""
    if path.exists():
        return keras.saving.load_model(path, compile=False)
    model = make()
    unfinished = path.with_name(f"unfinished {path.name}")
    model.save(unfinished)
    unfinished.replace(path)
    return model


def table(name: str, found: dict[str, float]) -> str:
    reported = NETWORKS[name].reported
    old = dict(zip(STEPS, reported, strict=False)) if reported else {}
    rows = [(STEPS[s], f"{found[s]:.2%}", f"{old[s]:.2f}%" if s in old else "") for s in STEPS if s in found]
    return markdown_table([name, "accuracy here", "old toolkit, ImageNet"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument(
        "--data", type=pathlib.Path, required=True, metavar="IMAGES", help="with train/ and validation/"
    )
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("zoo"), help="keeps models; default: zoo")
    parser.add_argument("--target", choices=["tensorrt", "onnxruntime", "openvino"], default="tensorrt")
    parser.add_argument("--epochs", type=int, default=1, help="of the quantized network; default: 1")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, help="height and width of the images; default: as the network has them")
    parser.add_argument("--weights", choices=["imagenet", "none"], default="imagenet")
    parser.add_argument("--float-epochs", type=int, default=5, help="where weights of ImageNet do not fit; default: 5")
    parser.add_argument("--mixed-precision", action="store_true", help="train in mixed_float16")
    arguments = parser.parse_args()
    for split in ("train", "validation"):
        if not (arguments.data / split).is_dir():
            parser.error(f"{arguments.data} has no folder {split!r} with a folder of images for each class.")

    keras.utils.set_random_seed(0)
    if arguments.mixed_precision:
        keras.config.set_dtype_policy("mixed_float16")
    network = NETWORKS[arguments.network]
    images = Images(arguments.data, network, arguments.size or network.size, arguments.batch_size)
    weights = None if arguments.weights == "none" else arguments.weights
    folder = arguments.folder / arguments.network / arguments.target
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.json"
    found = json.loads(results.read_text()) if results.exists() else {}

    def measured(step: str, measure: Callable[[], float]) -> None:
        if step not in found:
            found[step] = measure()
            results.write_text(json.dumps(found))
        print(f"{STEPS[step]}: {found[step]:.2%}", flush=True)

    with devices():
        exact = kept(folder / "float.keras", lambda: float_model(network, images, weights, arguments.float_epochs))
        measured("float", lambda: accuracy(exact, images))
        quantized = kept(
            folder / "ptq.keras", lambda: post_training_quantize(exact, calibration(images), target=arguments.target)
        )
        measured("ptq", lambda: accuracy(quantized, images))
        tuned = kept(
            folder / "qat.keras",
            lambda: trained(quantized, exact, images, arguments.epochs, folder / "unfinished training"),
        )
        measured("qat", lambda: accuracy(tuned, images))
    file = folder / "qat.onnx"
    if not file.exists():
        export_onnx(tuned, file)
    measured("file", lambda: accuracy_of_file(file, arguments.target, images))
    print(f"\n{table(arguments.network, found)}\n\n{file}")


if __name__ == "__main__":
    main()
