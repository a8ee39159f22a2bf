"""What ONNX' operators are: the only such tables. What a runtime does with them is in its passes and rules."""

from __future__ import annotations

#: Operators that multiply, with the indices of their two factors.
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

#: Operators that multiply an input by weights, in floats: the index of their bias, which is optional; `None`: no bias.
BIASES = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "MatMul": None}

#: Operators that keep all values of their input, or a slice of them, in one output.
MOVING = frozenset({"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})

#: Operators that keep all values, in another layout or dtype: what may stand between an input and its first layer.
RELAYING = frozenset({"Cast", "Reshape", "Transpose"})

#: Operators whose outputs hold values of their first input and nothing else; a Pad does if it pads with zero.
SELECTING = MOVING | {"Gather", "MaxPool", "Pad", "Split"}

#: Operators that move, join, repeat or choose values: integers stay what they are. Without Gather, with which no rule
#: of a runtime was measured.
CARRYING = MOVING | {"Concat", "DepthToSpace", "MaxPool", "Pad", "Resize", "SpaceToDepth", "Split"}

#: Operators that average values, or take the least or greatest.
POOLING = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceMin"}
)

#: Operators that limit values.
LIMITING = frozenset({"Clip", "Max", "Min", "Relu"})

#: Functions of one value that follow a layer.
ACTIVATIONS = frozenset(
    {"Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu"}
    | {"Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"}
)

#: Operators that compute each point of an image from the same point of their inputs.
POINTWISE = frozenset(
    {"Add", "Clip", "Div", "Elu", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mul", "Relu"}
    | {"Sigmoid", "Softplus", "Sub", "Tanh"}
)

#: The same, with a number for each channel, or one for all channels, as further inputs.
CHANNELWISE = frozenset({"BatchNormalization", "DequantizeLinear", "QuantizeLinear"})
