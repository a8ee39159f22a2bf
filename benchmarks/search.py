"""`search` beside an exhaustive evaluation of all precisions, on three networks of five layers.

    python benchmarks/search.py [NAME ...] [--evaluations N]

Each layer is in float, W8A8 or W4A8: 243 ways. The networks are trained here on Fashion-MNIST of 14 x 14 pixels, and
evaluated on 5,000 test images. Printed are, over all costs, the greatest and the mean gap of the front that `search`
found to the exhaustive front, in points of accuracy. What was evaluated stays in `.cache/trained/`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace

import keras
import numpy as np

from pretrained.fashion import train
from pretrained.network import CACHE
from search_networks import NETWORKS
from tensorflow_quantization import calibrate, quantize_model, search
from tensorflow_quantization.mixed_precision import FLOAT, Precision
from tensorflow_quantization.mixed_precision.explore import pareto
from tensorflow_quantization.mixed_precision.precision import bytes_of_weights, spec_of

TARGET = "onnxruntime"
PRECISIONS = (FLOAT, Precision(8, 8), Precision(4, 8))
TEST_IMAGES = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--evaluations", type=int, default=24, help="a tenth of 243 by default")
    arguments = parser.parse_args()
    (x_train, y_train), (x_test, y_test) = images()
    print(
        "network    float   search: evaluations  greatest gap  mean gap   exhaustive: evaluations, points of the front"
    )
    for name in arguments.names:
        model = trained(name, x_train, y_train)
        evaluate = accuracy(x_test[:TEST_IMAGES], y_test[:TEST_IMAGES])
        every = pareto(exhaustive(name, model, x_train[:256], evaluate))
        found = search(
            model,
            x_train[:256],
            evaluate,
            budget={"bytes": bytes_of_weights(model, model)},
            target=TARGET,
            evaluations=arguments.evaluations,
            verbose=0,
        )
        gaps = [one.metric - max((o.metric for o in found.front if o.cost <= one.cost), default=0.0) for one in every]
        print(
            f"{name:10} {found.reference:.2f}   {len(found.evaluations):19}  {max(gaps):12.2f}  {np.mean(gaps):8.3f}"
            f"   {len(PRECISIONS) ** len(layers_of(model)) - 1:23}, {len(every)}",
            flush=True,
        )


def images():
    """Fashion-MNIST; each pixel is the mean of four."""
    sys.path.append("examples")
    from fashion_mnist import load_fashion_mnist

    return [(x.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4)), y) for x, y in load_fashion_mnist()]


def trained(name: str, x: np.ndarray, y: np.ndarray) -> keras.Model:
    """The network after three epochs, or with the weights of an earlier training."""
    keras.utils.set_random_seed(0)
    model, weights = NETWORKS[name](), CACHE / f"search-{name}.weights.h5"
    if weights.exists():
        model.load_weights(weights)
    else:
        train(model, x, y, epochs=3)
        model.save_weights(weights)
    return model


def accuracy(x: np.ndarray, y: np.ndarray) -> Callable[[keras.Model], float]:
    def evaluate(model: keras.Model) -> float:
        batches = [keras.ops.convert_to_numpy(model(x[i : i + 1000], training=False)) for i in range(0, len(x), 1000)]
        return 100 * float((np.concatenate(batches).argmax(-1) == y).mean())

    return evaluate


def layers_of(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if hasattr(layer, "kernel")]


def exhaustive(name: str, model: keras.Model, data: np.ndarray, evaluate: Callable[[keras.Model], float]) -> list:
    """Every way to choose, with its bytes and its accuracy; without the float model."""
    file, names = CACHE / f"search-{name}.json", layers_of(model)
    found = json.loads(file.read_text()) if file.exists() else {}
    ways = []
    for way in itertools.product(PRECISIONS, repeat=len(names)):
        if all(precision == FLOAT for precision in way):
            continue
        key, spec = ",".join(map(str, way)), spec_of(dict(zip(names, way, strict=True)))
        if key not in found:
            quantized = calibrate(quantize_model(model, quantization_spec=spec, target=TARGET), data, verbose=0)
            found[key] = [bytes_of_weights(model, quantized), evaluate(quantized)]
        ways.append(SimpleNamespace(cost=found[key][0], metric=found[key][1]))
    file.write_text(json.dumps(found))
    return ways


if __name__ == "__main__":
    main()
