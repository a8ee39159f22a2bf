"""The tables of ONNX operators. What a runtime does with an operator is in the passes and rules of the runtime."""

from __future__ import annotations

#: Convolutions and matrix products, with the indices of the two inputs that they multiply.
FACTORS = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}

#: Float operators that multiply an input by weights, with the index of the optional bias; `None`: they have no bias.
BIASES = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "MatMul": None}

#: Operators that run over the steps of a sequence. Their inputs 1 and 2 are weights.
RECURRENT = frozenset({"GRU", "LSTM", "RNN"})

#: Operators that multiply by weights or by one another.
MULTIPLYING = RECURRENT | FACTORS.keys() | {"Attention", "Einsum"}

#: Operators with one output that holds the values of their input, or a slice of them.
MOVING = frozenset({"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})

#: Operators that keep all values and change layout or dtype: they may lie between a model input and the first layer.
RELAYING = frozenset({"Cast", "Reshape", "Transpose"})

#: Operators whose outputs hold only values of their first input; a Pad does only if it pads with zero.
SELECTING = MOVING | {"Gather", "MaxPool", "Pad", "Split"}

#: Operators that move, join, repeat or select values, so that integers stay the same. Not Gather: no rule of a runtime
#: was measured with it.
CARRYING = MOVING | {"Concat", "DepthToSpace", "MaxPool", "Pad", "Resize", "SpaceToDepth", "Split"}

#: Operators that return the mean, the minimum or the maximum of several values.
POOLING = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceMin"}
)

#: Reductions that commute with a positive factor, over any axes.
LINEAR_REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})

#: Operators that limit values.
LIMITING = frozenset({"Clip", "Max", "Min", "Relu"})

#: Activation functions.
ACTIVATIONS = frozenset(
    {"Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu"}
    | {"Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"}
)

#: Operators that compute each point of an image from the same point of their inputs.
POINTWISE = frozenset(
    {"Add", "Clip", "Div", "Elu", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mul", "Relu"}
    | {"Sigmoid", "Softplus", "Sub", "Tanh"}
)

#: The same, with parameters per channel or per tensor as further inputs.
CHANNELWISE = frozenset({"BatchNormalization", "DequantizeLinear", "QuantizeLinear"})
