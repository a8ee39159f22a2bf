"""What is done to the graph once all layers are in it: one pass a file, each a function of the `Builder`."""

from tensorflow_quantization.export.onnx.builder import Builder
from tensorflow_quantization.export.onnx.passes.affine_as_batch_norm import affine_as_batch_norm
from tensorflow_quantization.export.onnx.passes.batch_norm_as_convolution import batch_norm_as_convolution
from tensorflow_quantization.export.onnx.passes.bounded_sums import bounded_sums
from tensorflow_quantization.export.onnx.passes.clip_to_max import clip_to_max
from tensorflow_quantization.export.onnx.passes.counted_padding import counted_padding
from tensorflow_quantization.export.onnx.passes.dead_code import remove_dead_code
from tensorflow_quantization.export.onnx.passes.drop_clips import drop_clips
from tensorflow_quantization.export.onnx.passes.drop_repeated_quantizers import drop_repeated_quantizers
from tensorflow_quantization.export.onnx.passes.fold_batch_norm import fold_batch_norm
from tensorflow_quantization.export.onnx.passes.fold_input_scaling import fold_input_scaling
from tensorflow_quantization.export.onnx.passes.fold_padding import fold_padding
from tensorflow_quantization.export.onnx.passes.integer_bias import integer_bias
from tensorflow_quantization.export.onnx.passes.integer_convolution_bias import integer_convolution_bias
from tensorflow_quantization.export.onnx.passes.integer_padding import integer_padding
from tensorflow_quantization.export.onnx.passes.merge_concats import merge_concats
from tensorflow_quantization.export.onnx.passes.merge_quantizers import merge_quantizers
from tensorflow_quantization.export.onnx.passes.merge_reshapes import merge_reshapes
from tensorflow_quantization.export.onnx.passes.quantize_before_reshape import quantize_before_reshape
from tensorflow_quantization.export.onnx.passes.reduction_axes import reduction_axes
from tensorflow_quantization.export.onnx.passes.repeat_quantizers import repeat_quantizers
from tensorflow_quantization.export.onnx.passes.scaling_into_quantizers import scaling_into_quantizers
from tensorflow_quantization.export.onnx.passes.skip_unread_points import skip_unread_points
from tensorflow_quantization.export.onnx.passes.strided_pointwise import strided_pointwise
from tensorflow_quantization.export.onnx.passes.unsigned_activations import unsigned_activations

#: In this order: an emitter may have written what nobody reads, which must not stop others from being folded; padding
#: and clips look at what feeds them; which points are read depends on all readers, so that dead ones are gone by then.
PASSES = (
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
    reduction_axes,
    clip_to_max,
)


#: Afterwards, for a runtime: what it executes faster in another form.
TARGET_PASSES = {
    "onnxruntime": (
        merge_quantizers,
        unsigned_activations,
        integer_padding,
        scaling_into_quantizers,
        affine_as_batch_norm,
        batch_norm_as_convolution,
        integer_bias,
    ),
    "openvino": (
        merge_quantizers,
        drop_repeated_quantizers,
        quantize_before_reshape,
        strided_pointwise,
        counted_padding,
        integer_padding,
        integer_convolution_bias,
        remove_dead_code,  # it asks who reads a tensor
        bounded_sums,
    ),
}


def run_passes(builder: Builder, target: str | None) -> None:
    """Simplify the graph without changing what it computes.

    Args:
        target: the name of the runtime that the file is for.
    """
    for function in (*PASSES, *TARGET_PASSES.get(target or "", ())):
        function(builder)
    remove_dead_code(builder)
