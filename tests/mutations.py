"""Damaged files: bytes that are lost, flipped or repeated, and ONNX graphs with a wrong name, size or operator."""

import onnx

_CHANGES = (
    *("input", "input", "inputs", "output", "outputs", "operator", "domain", "attribute", "cast"),
    *("drop", "order", "repeat", "dims", "dtype", "data", "external", "value", "opset"),
)
_ATTRIBUTES = ("axis", "perm", "pads", "transB", "group", "strides", "dilations", "kernel_shape", "ceil_mode", "alpha")


def mutate(data, rng):
    """`data` with one random damage.

    Args:
        data: the bytes of a file.
        rng: a `random.Random`.
    """
    data = bytearray(data)
    start = rng.randrange(len(data))
    length = min(rng.choice([1, 2, 4, 16, 256, 4096]), len(data) - start)
    damage = rng.choice(["truncate", "flip", "flip", "flip", "overwrite", "cut", "repeat", "zero"])
    if damage == "truncate":
        del data[start:]
    elif damage == "flip":
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif damage == "overwrite":
        data[start : start + length] = rng.randbytes(length)
    elif damage == "cut":
        del data[start : start + length]
    elif damage == "repeat":
        data[start:start] = data[start : start + length]
    elif damage == "zero":
        data[start : start + length] = bytes(length)
    return bytes(data)


def mutate_graph(data, rng):
    """The bytes of an ONNX file with one random change of its graph: the file can be parsed, and may be wrong.

    Args:
        data: the bytes of an ONNX file.
        rng: a `random.Random`.
    """
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    node = rng.choice(graph.node)
    tensor = rng.choice(graph.initializer)
    names = [*(t.name for t in graph.initializer), *(o for n in graph.node for o in n.output), "nowhere", ""]
    change = rng.choice(_CHANGES)
    if change == "input" and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif change == "output":
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    elif change == "operator":
        node.op_type = rng.choice([*(n.op_type for n in graph.node), "Identity", "Loop", "If", "Nothing", ""])
    elif change == "domain":
        node.domain = rng.choice(["com.microsoft", "ai.onnx", "nowhere", "\x00"])
    elif change == "attribute":
        _change_attribute(node, rng)
    elif change == "drop":
        graph.node.remove(node)
    elif change == "dims":
        tensor.dims.append(rng.choice([0, 2, -1, 2**31, 2**62]))
    elif change == "dtype":
        tensor.data_type = rng.choice([0, 1, 2, 3, 7, 8, 10, 16, 17, 22, 23, 99])
    elif change == "data":
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif change == "opset":
        model.opset_import[0].version = rng.choice([-1, 0, 1, 9, 12, 99, 2**40])
    elif change == "cast":
        node.op_type, node.input[:] = "Cast", node.input[:1]
    elif change == "inputs":
        del node.input[rng.randrange(len(node.input) + 1) :]
    elif change == "outputs":
        del node.output[:]
    elif change == "value":
        del rng.choice([graph.input, graph.output, graph.initializer])[:]
    elif change == "external":
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        location = rng.choice(["/etc/passwd", "../secret", "missing.data", "", "a\x00b", "."])
        tensor.external_data.add(key=rng.choice(["location", "location", "offset", "checksum"]), value=location)
    elif change == "order":
        graph.node.remove(node)
        graph.node.insert(0, node)
    elif change == "repeat":
        graph.node.append(node)
    return model.SerializeToString()


def _change_attribute(node, rng):
    name = rng.choice([*(a.name for a in node.attribute), *_ATTRIBUTES])
    for attribute in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(attribute)
    value = rng.choice([-5, 0, 7, 2**40, 0.5, "text", [1], [0, 0], [-1, 2], [2**40, -1], [0] * 4, [0.5], None])
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))
