"""Networks with trained weights, and real inputs, on which accuracy is measured.

    python benchmarks/trained.py NAME ... [--seed SEED]

prints the parameters and the accuracy of each. Packages and weights stay in `.cache/trained/`: what is there is neither
downloaded nor trained again.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

from pretrained.efficientnet_lite import efficientnet_lite_network
from pretrained.fashion import NETWORKS, fashion_network
from pretrained.fer import fer_network
from pretrained.hed import hed_network
from pretrained.magika import magika_network
from pretrained.network import TrainedNetwork, UnavailableError
from pretrained.silero import silero_network
from pretrained.upscaler import upscaler_network
from pretrained.vowels import vowels_network

__all__ = ["DESCRIPTIONS", "NAMES", "SEEDED", "TrainedNetwork", "UnavailableError", "trained_network"]

_SMALL = "a small one of this family, trained on Fashion-MNIST"
#: By name: what it is, and a function of the seed.
_NETWORKS: dict[str, tuple[str, Callable[[int], TrainedNetwork]]] = {
    "efficientnet_lite": ("ImageNet, depthwise convolutions", lambda seed: efficientnet_lite_network()),
    "fer": ("emotions of faces, separable convolutions", lambda seed: fer_network()),
    "upscaler": ("super-resolution", lambda seed: upscaler_network()),
    "magika": ("kinds of files, from their bytes", lambda seed: magika_network()),
    "hed": ("edges, VGG16", lambda seed: hed_network()),
    "silero": ("voice activity, convolutions and an LSTM", lambda seed: silero_network()),
    "vowels": ("speakers, LSTMs, trained on JapaneseVowels", vowels_network),
    **{name: (_SMALL, functools.partial(fashion_network, name)) for name in NETWORKS},
}
NAMES: tuple[str, ...] = tuple(_NETWORKS)
#: What each is, by name.
DESCRIPTIONS: dict[str, str] = {name: description for name, (description, _) in _NETWORKS.items()}
#: Those that come untrained: each seed is another network.
SEEDED: tuple[str, ...] = ("vowels", *NETWORKS)


def trained_network(name: str, seed: int = 0) -> TrainedNetwork:
    """The network of this name with its inputs.

    Args:
        name: one of `NAMES`.
        seed: of the training of vowels and of the networks on Fashion-MNIST; the others come trained.

    Raises:
        ValueError: there is no network of this name.
        UnavailableError: its weights or data cannot be had here; the message says why.
    """
    if name not in _NETWORKS:
        raise ValueError(f"No trained network {name!r}; there are {', '.join(NAMES)}")
    _, load = _NETWORKS[name]
    return load(seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seed", type=int, default=0, help="of the training of those that come untrained")
    arguments = parser.parse_args()
    for name in arguments.names:
        try:
            network = trained_network(name, arguments.seed)
        except UnavailableError as error:
            print(f"{name}: skipped: {error}")
        else:
            print(f"{name}: {network.model.count_params():,} parameters, accuracy {network.accuracy()}")


if __name__ == "__main__":
    main()
