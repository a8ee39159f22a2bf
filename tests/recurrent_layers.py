"""Recurrent layers whose weights are quantized, by name: functions of their arguments."""

from keras import layers

LAYERS = {
    "LSTM": lambda **k: layers.LSTM(4, **k),
    "GRU": lambda **k: layers.GRU(4, **k),
    "GRU, reset before": lambda **k: layers.GRU(4, reset_after=False, **k),
    "SimpleRNN": lambda **k: layers.SimpleRNN(4, **k),
    "stack": lambda **k: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], **k),
    "Bidirectional": lambda **k: layers.Bidirectional(layers.LSTM(3, **k)),
}

#: By the number of axes of an image.
CONVOLUTIONAL = {1: layers.ConvLSTM1D, 2: layers.ConvLSTM2D, 3: layers.ConvLSTM3D}
