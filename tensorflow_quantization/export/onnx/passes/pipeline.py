"""`run_passes`: run the passes of a runtime in order."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes.common.dead_code import remove_dead_code
from tensorflow_quantization.export.onnx.passes.common.drop_clips import drop_clips
from tensorflow_quantization.export.onnx.passes.common.float16 import check_concatenations, require_scales, to_float16
from tensorflow_quantization.export.onnx.passes.common.float16_scales import float16_scales
from tensorflow_quantization.export.onnx.passes.common.fold_batch_norm import fold_batch_norm
from tensorflow_quantization.export.onnx.passes.common.fold_input_scaling import fold_input_scaling
from tensorflow_quantization.export.onnx.passes.common.fold_padding import fold_padding
from tensorflow_quantization.export.onnx.passes.common.int4_weights import int4_weights
from tensorflow_quantization.export.onnx.passes.common.integer_padding import integer_padding
from tensorflow_quantization.export.onnx.passes.common.merge_concats import merge_concats
from tensorflow_quantization.export.onnx.passes.common.merge_quantizers import merge_quantizers
from tensorflow_quantization.export.onnx.passes.common.merge_reshapes import merge_reshapes
from tensorflow_quantization.export.onnx.passes.common.recurrent_weights import recurrent_weights
from tensorflow_quantization.export.onnx.passes.common.reduction_axes import reduction_axes
from tensorflow_quantization.export.onnx.passes.common.repeat_quantizers import repeat_quantizers
from tensorflow_quantization.export.onnx.passes.common.skip_unread_points import skip_unread_points
from tensorflow_quantization.export.onnx.passes.onnxruntime.affine_as_batch_norm import affine_as_batch_norm
from tensorflow_quantization.export.onnx.passes.onnxruntime.batch_norm_as_convolution import batch_norm_as_convolution
from tensorflow_quantization.export.onnx.passes.onnxruntime.integer_bias import integer_bias
from tensorflow_quantization.export.onnx.passes.onnxruntime.scaling_into_quantizers import scaling_into_quantizers
from tensorflow_quantization.export.onnx.passes.onnxruntime.unsigned_activations import unsigned_activations
from tensorflow_quantization.export.onnx.passes.onnxruntime.weight_barriers import weight_barriers
from tensorflow_quantization.export.onnx.passes.openvino.bounded_sums import bounded_sums
from tensorflow_quantization.export.onnx.passes.openvino.clip_to_max import clip_to_max
from tensorflow_quantization.export.onnx.passes.openvino.constant_barriers import constant_barriers
from tensorflow_quantization.export.onnx.passes.openvino.counted_padding import counted_padding
from tensorflow_quantization.export.onnx.passes.openvino.dequantizer_barriers import dequantizer_barriers
from tensorflow_quantization.export.onnx.passes.openvino.drop_repeated_quantizers import drop_repeated_quantizers
from tensorflow_quantization.export.onnx.passes.openvino.gap_barriers import gap_barriers
from tensorflow_quantization.export.onnx.passes.openvino.initial_states import initial_states
from tensorflow_quantization.export.onnx.passes.openvino.integer_convolution_bias import integer_convolution_bias
from tensorflow_quantization.export.onnx.passes.openvino.normalization_barriers import normalization_barriers
from tensorflow_quantization.export.onnx.passes.openvino.pool_barriers import pool_barriers
from tensorflow_quantization.export.onnx.passes.openvino.product_barriers import product_barriers
from tensorflow_quantization.export.onnx.passes.openvino.quantize_before_reshape import quantize_before_reshape
from tensorflow_quantization.export.onnx.passes.openvino.quantizer_barriers import quantizer_barriers
from tensorflow_quantization.export.onnx.passes.openvino.reduction_barriers import reduction_barriers
from tensorflow_quantization.export.onnx.passes.openvino.rounding_barriers import rounding_barriers
from tensorflow_quantization.export.onnx.passes.openvino.separate_sequences import separate_sequences
from tensorflow_quantization.export.onnx.passes.openvino.shape_barriers import shape_barriers
from tensorflow_quantization.export.onnx.passes.openvino.sign_barriers import sign_barriers
from tensorflow_quantization.export.onnx.passes.openvino.strided_pointwise import strided_pointwise
from tensorflow_quantization.export.onnx.passes.tensorrt.cast_bytes_first import cast_bytes_first
from tensorflow_quantization.export.onnx.passes.tensorrt.integer_average_pooling import integer_average_pooling
from tensorflow_quantization.export.onnx.passes.tensorrt.quantize_before_transpose import quantize_before_transpose
from tensorflow_quantization.export.onnx.passes.tensorrt.scale_before_transpose import scale_before_transpose
from tensorflow_quantization.export.onnx.passes.tensorrt.subpixel_convolution import subpixel_convolution
from tensorflow_quantization.export.onnx.passes.tensorrt.transpose_only_channel import transpose_only_channel
from tensorflow_quantization.targets import DEFAULT

logger = logging.getLogger(__name__)

#: Rewrites the graph of a builder, and returns the number of changed places.
Pass = Callable[[Builder], int]

#: For all files. The order matters: dead code is removed first, because a dead reader would prevent folds; and again
#: before `skip_unread_points`, which looks at all readers of a tensor. `fold_padding` and `drop_clips` look at the
#: operators around a Pad or Clip before `repeat_quantizers` inserts quantizers there.
COMMON: tuple[Pass, ...] = (
    remove_dead_code,
    fold_padding,
    fold_batch_norm,
    fold_input_scaling,
    drop_clips,
    merge_reshapes,
    merge_concats,
    remove_dead_code,
    skip_unread_points,
    repeat_quantizers,
)

#: Then, for one runtime: forms that it executes faster, or without which it returns wrong results.
BY_RUNTIME: dict[str, tuple[Pass, ...]] = {
    # A file without a target may run in any runtime, and OpenVINO and ONNX Runtime return wrong results without these.
    DEFAULT.name: (
        clip_to_max,
        separate_sequences,
        initial_states,
        pool_barriers,
        sign_barriers,
        gap_barriers,
        dequantizer_barriers,
        reduction_barriers,
        quantizer_barriers,
        normalization_barriers,
        product_barriers,
        constant_barriers,
        weight_barriers,
    ),
    "onnxruntime": (
        merge_quantizers,
        unsigned_activations,
        integer_padding,
        scaling_into_quantizers,
        affine_as_batch_norm,
        batch_norm_as_convolution,
        integer_bias,
        weight_barriers,
        int4_weights,  # at the end: other passes look for the integers right before their DequantizeLinear
        recurrent_weights,
    ),
    "openvino": (
        merge_quantizers,
        clip_to_max,
        drop_repeated_quantizers,
        quantize_before_reshape,
        strided_pointwise,
        counted_padding,
        integer_padding,
        integer_convolution_bias,
        separate_sequences,
        initial_states,
        shape_barriers,
        pool_barriers,
        sign_barriers,
        gap_barriers,
        dequantizer_barriers,
        reduction_barriers,
        quantizer_barriers,
        normalization_barriers,
        product_barriers,
        constant_barriers,
        rounding_barriers,
        remove_dead_code,  # the next pass looks at all readers of a tensor
        bounded_sums,
        int4_weights,
        recurrent_weights,
    ),
    "tensorrt": (
        cast_bytes_first,
        integer_average_pooling,
        subpixel_convolution,
        transpose_only_channel,
        scale_before_transpose,
        quantize_before_transpose,
    ),
}

#: Then, for all files: forms of the opset that the passes so far need, and removal of what they left.
FINAL: tuple[Pass, ...] = (reduction_axes, remove_dead_code)

#: At the end, for one precision: convert the finished graph to another float dtype.
BY_PRECISION: dict[str, tuple[Pass, ...]] = {"float16": (float16_scales, to_float16)}


def run_passes(builder: Builder, target: str | None, precision: str = "float32") -> Counter[str]:
    """Simplify the graph without changing what it computes, and rewrite it into the forms that a runtime executes best.

    Args:
        builder: the builder of the graph, which is changed.
        target: the runtime for which the file is written; `None` for any runtime.
        precision: "float32" (default) or "float16".

    Returns:
        The number of places that each pass changed, by the name of the pass. Passes without changes are omitted.

    Raises:
        OpsetError: float16 scales need a newer opset than the requested opset.
        ExportError: float16 cannot hold a weight or a scale, or the runtime does not load such a graph.
    """
    if precision == "float16":
        require_scales(builder)
    passes = (*COMMON, *BY_RUNTIME.get(target or DEFAULT.name, ()), *FINAL, *BY_PRECISION.get(precision, ()))
    changed: Counter[str] = Counter()
    for run in passes:
        if count := run(builder):
            changed[run.__name__] += count
            logger.debug("%s changed %d places", run.__name__, count)
    if (target, precision) == ("onnxruntime", "float16"):
        check_concatenations(builder)
    return changed
