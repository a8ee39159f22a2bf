"""Files from elsewhere: damaged, hostile, too large."""

import os
import random

import numpy as np
import onnx
import pytest
from mutations import mutate, mutate_graph
from onnx import helper, numpy_helper

from tensorflow_quantization import check_onnx, runtime_report
from tensorflow_quantization.onnx_graph import files

MUTATIONS = 200


def value(name, *shape):
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def small_model():
    """Quantized input, quantized kernel, a convolution."""
    rng = np.random.default_rng(0)
    constants = {
        "scale": np.float32(0.02),
        "zero": np.int8(0),
        "kernel": rng.integers(-127, 127, (4, 3, 3, 3), np.int8),
        "scales": rng.uniform(0.01, 0.02, 4).astype("float32"),
        "zeros": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], "dq"),
        helper.make_node("DequantizeLinear", ["kernel", "scales", "zeros"], ["weight"], "weight", axis=0),
        helper.make_node("Conv", ["dq", "weight"], ["y"], "conv", strides=[1, 1]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 1, 3, 8, 8)], [value("y", 1, 4, 6, 6)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(tmp_path, change=None):
    model = small_model()
    if change is not None:
        change(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def kernel_of(model):
    return next(tensor for tensor in model.graph.initializer if tensor.name == "kernel")


def with_kernel_in(location):
    def change(model):
        kernel = kernel_of(model)
        kernel.ClearField("raw_data")
        kernel.data_location = onnx.TensorProto.EXTERNAL
        kernel.external_data.add(key="location", value=location)

    return change


@pytest.mark.parametrize("damage", [mutate, mutate_graph])
@pytest.mark.parametrize("read", [check_onnx, runtime_report])
def test_a_damaged_file_is_read_or_refused_with_a_reason(damage, read, tmp_path, capfd):
    data = small_model().SerializeToString()
    path = tmp_path / "m.onnx"
    for seed in range(MUTATIONS):
        path.write_bytes(damage(data, random.Random(seed)))
        try:
            str(read(path))
        except (ValueError, FileNotFoundError) as error:
            assert type(error) in (ValueError, FileNotFoundError), f"seed {seed}"
            assert str(path) in str(error) or "pass input_shapes" in str(error), f"seed {seed}"
        except Exception as error:
            pytest.fail(f"seed {seed}: {error!r}")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.data", "folder/../../secret.data", ""])
def test_external_data_outside_of_the_folder_is_not_read(location, tmp_path):
    (tmp_path / "secret.data").write_bytes(bytes(1000))
    folder = tmp_path / "model"
    folder.mkdir()
    path = saved(folder, with_kernel_in(location))
    for read in (check_onnx, runtime_report):
        with pytest.raises(ValueError, match=r"not a valid ONNX model|outside of the folder of the file"):
            read(path)


def test_external_data_behind_a_link_out_of_the_folder_is_not_read(tmp_path):
    (tmp_path / "secret.data").write_bytes(bytes(1000))
    folder = tmp_path / "model"
    folder.mkdir()
    os.symlink(tmp_path / "secret.data", folder / "linked.data")
    path = saved(folder, with_kernel_in("linked.data"))
    with pytest.raises(ValueError, match=r"'linked\.data', outside of the folder of the file\. It was not read"):
        check_onnx(path)


def test_missing_and_short_external_data_is_named(tmp_path):
    path = saved(tmp_path, with_kernel_in("m.data"))
    with pytest.raises(FileNotFoundError, match=r"'kernel' in 'm\.data', and there is no such file"):
        check_onnx(path)
    (tmp_path / "m.data").write_bytes(bytes(10))
    with pytest.raises(ValueError, match="constant 'kernel', which cannot be read"):
        check_onnx(path)


@pytest.mark.parametrize("dims", [[2**31], [2**62], [-1, 3, 3, 3], [2**32, 2**32]])
def test_a_constant_with_a_wrong_size_is_named_and_not_allocated(dims, tmp_path):
    def change(model):
        kernel_of(model).dims[:] = dims

    with pytest.raises(ValueError, match="constant 'kernel'"):
        check_onnx(saved(tmp_path, change))


@pytest.mark.parametrize(("dims", "size"), [([4, 3], 5), ([4, 3], 7), ([3], 0), ([2**36], 8)])
def test_an_int4_constant_with_a_wrong_size_is_named_and_not_allocated(dims, size, tmp_path):
    def change(model):
        raw = onnx.TensorProto(name="int4", data_type=onnx.TensorProto.INT4, dims=dims, raw_data=bytes(size))
        model.graph.initializer.append(raw)

    with pytest.raises(ValueError, match=f"constant 'int4', which cannot be read: it has {size} bytes"):
        check_onnx(saved(tmp_path, change))


def test_a_file_above_2_gib_says_how_to_write_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LARGEST_MESSAGE", 100)
    with pytest.raises(ValueError, match=r"holds less than 2 GiB\. Write its weights to a second file"):
        check_onnx(saved(tmp_path))


def test_an_opset_that_cannot_exist_is_refused(tmp_path):
    def change(model):
        model.opset_import[0].version = 2**40  # OpenVINO would count up to it

    with pytest.raises(ValueError, match="the opset 1099511627776"):
        runtime_report(saved(tmp_path, change), "openvino")


def test_a_cycle_is_refused(tmp_path):
    def change(model):
        model.graph.node[1].input[0] = "dq"

    with pytest.raises(ValueError, match=r"'dq' .* reads 'dq', which no earlier node computes"):
        check_onnx(saved(tmp_path, change))


def test_an_input_without_a_shape_is_allowed(tmp_path):
    def change(model):
        model.graph.input[0].type.tensor_type.ClearField("shape")

    assert not check_onnx(saved(tmp_path, change), "onnxruntime").errors


@pytest.mark.parametrize("content", ["", "text", "TFL3"])
def test_another_kind_of_file_is_refused(content, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text(content)
    with pytest.raises(ValueError, match="is not an ONNX model"):
        check_onnx(path)
