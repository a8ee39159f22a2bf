"""What `quantize_model` costs, against `keras.models.clone_model` of the same model.

    python benchmarks/quantize_time.py [--quick]

Chains of 10, 100 and 1,000 convolutions show how the time grows with depth; ResNet50 and EfficientNetB3 are what users
have. `clone_model` makes new layers and draws new weights; `quantize_model` also plans, wraps and copies the weights.
"""

from __future__ import annotations

import argparse
import functools
import sys

import keras

from tensorflow_quantization import quantize_model
from tensorflow_quantization.export.verification.timing import interleaved, summary
from tensorflow_quantization.text.tables import markdown_table

FUNCTIONS = {"clone": keras.models.clone_model, "quantize": quantize_model}


def chain(depth: int) -> keras.Model:
    """`depth` convolutions, one after the other."""
    inputs = x = keras.Input((8, 8, 4))
    for _ in range(depth):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, x, name=f"chain_of_{depth}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small models, few rounds: does it run, not how fast")
    arguments = parser.parse_args()
    sys.setrecursionlimit(100_000)  # Keras walks a model by recursion, which the default ends at some 980 layers

    if arguments.quick:
        models, rounds = [chain(10), chain(100)], 2
    else:
        applications = [keras.applications.ResNet50(weights=None), keras.applications.EfficientNetB3(weights=None)]
        models, rounds = [*(chain(depth) for depth in (10, 100, 1000)), *applications], 5
    rows = []
    for model in models:
        contenders = {name: functools.partial(function, model) for name, function in FUNCTIONS.items()}
        (_, clone_ms, _), (_, quantize_ms, ratio) = summary(interleaved(contenders, rounds, warmup=1))
        layers = len(model.layers)
        rows.append(
            (model.name, layers, f"{clone_ms:.0f}", f"{quantize_ms:.0f}", f"{ratio:.2f}", f"{quantize_ms / layers:.2f}")
        )
    print(f"{rounds} rounds, medians\n")
    titles = ["model", "layers", "clone_model ms", "quantize_model ms", "against clone", "quantize_model ms a layer"]
    print(markdown_table(titles, rows))


if __name__ == "__main__":
    main()
