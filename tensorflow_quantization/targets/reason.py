"""`Reason`: why a layer is quantized or not, as a code for programs and a text for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """The kind of a reason. Saved models hold the values: add new values, but never change one."""

    # Quantized.
    DEFAULT = "default"  # the placement of the target or of the default table
    NAMED = "named"  # by an entry of the spec, or by a case
    READ_IN_INTEGERS = "read_in_integers"  # an integer kernel reads the output
    WRITTEN_IN_INTEGERS = "written_in_integers"  # an integer kernel writes the output
    STORED_IN_INTEGERS = "stored_in_integers"  # computed in float, with weights that are integers in the file
    FLOAT_READ_IN_INTEGERS = "float_read_in_integers"  # computed in float; an integer kernel reads the output
    # No quantizer, but computed in integers.
    FUSED = "fused"  # part of the kernel of another layer
    SHARES_QUANTIZER = "shares_quantizer"  # the inputs are quantized where they are computed
    MOVES_DATA = "moves_data"  # its output has the integers of its input
    # Float.
    NO_INTEGER_KERNEL = "no_integer_kernel"  # the runtime has none for it
    NO_GAIN = "no_gain"  # integers would save nothing here
    HUGE_MASK = "huge_mask"  # it has numbers such as -1e9, which mask scores
    OFF_BY_DEFAULT = "off_by_default"  # quantized only if named
    NOT_NAMED = "not_named"  # in partial mode
    SWITCHED_OFF = "switched_off"  # by the spec or a case
    NO_WRAPPER = "no_wrapper"  # nothing can quantize its class
    NOT_A_LAYER = "not_a_layer"  # an operation of keras.ops
    OWN_WEIGHT = "own_weight"  # a weight that the code of a custom layer reads
    NOT_FLOAT = "not_float"  # its input is not float
    CLOSED_BLOCK = "closed_block"  # a custom layer made of layers that is not opened
    UNKNOWN = "unknown"  # a model whose plan was not stored


@dataclass(frozen=True)
class Reason:
    """Why a layer is quantized or not.

    Attributes:
        code: the kind of reason, for programs.
        text: the reason for people, a clause.
    """

    code: ReasonCode
    text: str

    def __str__(self) -> str:
        return self.text
