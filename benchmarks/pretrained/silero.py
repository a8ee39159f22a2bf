"""Voice activity: the network of PyPI's package silero-vad, convolutions and an LSTM, on recorded speech."""

from __future__ import annotations

import pathlib
import wave

import keras
import numpy as np
from keras import layers

from .network import TrainedNetwork, UnavailableError
from .packages import debian, pypi

#: Samples in a step, what a step sees of the one before, and what it mirrors at its end; of 16,000 a second.
STEP, CONTEXT, MIRRORED = 512, 64, 64
#: Steps of a sequence: 2 seconds.
STEPS = 64
#: Sequences for calibration; the others are measured.
CALIBRATION = 64
#: Of the float network's output, above which there is speech, as in the package.
THRESHOLD = 0.5


def silero_network() -> TrainedNetwork:
    """Its inputs are two seconds of speech, float32 (n, 64, 576); labels, (n, 64): 1 where its file hears speech."""
    path = pypi("silero-vad", "6.2.3") / "silero_vad" / "data" / "silero_vad_16k_sequence.onnx"
    model = silero_model()
    load(model, path)
    sequences = frames(recordings(debian("asterisk-core-sounds-en-wav")))
    evaluation = sequences[CALIBRATION:]
    speech = probabilities(path, evaluation) > THRESHOLD
    return TrainedNetwork("silero", model, sequences[:CALIBRATION], evaluation, speech.astype("int64"))


def silero_model() -> keras.Model:
    """The ONNX file's network without the sigmoid; over the steps, its convolutions have a kernel of 1."""
    inputs = keras.Input((STEPS, CONTEXT + STEP), name="sound")
    x = keras.ops.pad(inputs, [(0, 0), (0, 0), (0, MIRRORED)], mode="reflect")
    x = layers.Reshape((STEPS, CONTEXT + STEP + MIRRORED, 1))(x)
    x = layers.Conv2D(258, (1, 256), (1, 128), use_bias=False, name="stft.forward_basis_buffer")(x)
    x = keras.ops.sqrt(keras.ops.square(x[..., :129]) + keras.ops.square(x[..., 129:]))
    for index, (filters, stride) in enumerate(((128, 1), (64, 2), (64, 2), (128, 1))):
        x = layers.ZeroPadding2D((0, 1))(x)  # as PyTorch pads: at both ends, whatever the stride
        x = layers.Conv2D(filters, (1, 3), (1, stride), activation="relu", name=f"encoder.{index}")(x)
    x = layers.LSTM(128, return_sequences=True, name="LSTM")(layers.Reshape((STEPS, 128))(x))
    x = layers.Dense(1, name="output")(layers.ReLU()(x))
    return keras.Model(inputs, layers.Reshape((STEPS,))(x), name="silero")


def load(model: keras.Model, path: pathlib.Path) -> None:
    """Give the layers the weights of the ONNX file."""
    import onnx

    constants = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            basis = layer.name in constants
            kernel = constants[layer.name if basis else f"{layer.name}.weight"].transpose(2, 1, 0)[np.newaxis]
            layer.set_weights([kernel] if basis else [kernel, constants[f"{layer.name}.bias"]])
    model.get_layer("output").set_weights([constants["output.weight"][..., 0].T, constants["output.bias"]])
    gates = [constants[f"onnx::LSTM_{index}"][0] for index in (209, 210)]
    biases = constants["onnx::LSTM_211"].reshape(2, 4 * 128).sum(0)
    model.get_layer("LSTM").set_weights([*(in_keras_order(g).T for g in gates), in_keras_order(biases)])


def in_keras_order(gates: np.ndarray) -> np.ndarray:
    """Rows of input, output, forget and cell gate, as ONNX has them, in the order of Keras."""
    i, o, f, c = np.split(gates, 4)
    return np.concatenate([i, f, c, o])


def recordings(folder: pathlib.Path) -> np.ndarray:
    """All recordings with half a second of silence after each, -1 to 1 at 16,000 samples a second."""
    from scipy.signal import resample_poly

    found = []
    for path in sorted(folder.rglob("*.wav")):
        with wave.open(str(path)) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (8000, 1, 2):
                raise UnavailableError(f"{path} is no mono sound of 8,000 16-bit samples a second")
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 2**15
        found += [resample_poly(samples, 2, 1), np.zeros(8000)]
    if not found:
        raise UnavailableError(f"{folder} has no recordings")
    return np.concatenate(found).astype("float32")


def frames(sound: np.ndarray) -> np.ndarray:
    """Sequences of steps that each begin with the last samples of the step before; the first with silence."""
    steps = sound[: len(sound) // (STEPS * STEP) * STEPS * STEP].reshape(-1, STEPS, STEP)
    context = np.concatenate([np.zeros_like(steps[:, :1, -CONTEXT:]), steps[:, :-1, -CONTEXT:]], 1)
    return np.concatenate([context, steps], -1)


def probabilities(path: pathlib.Path, sequences: np.ndarray) -> np.ndarray:
    """What the ONNX file says of each step, (n, 64): the probability of speech."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    state = np.zeros((1, 1, 128), "float32")
    return np.stack([session.run(None, {"input": s, "h": state, "c": state})[0].ravel() for s in sequences])
