"""Parse and build an ONNX file with TensorRT for RTX, which needs no GPU: a script for a process of its own.

NVIDIA's code may end the process that it runs in. So `tensorrt_engine` starts this file, which imports nothing else of
the package: `python tensorrt_build.py <request> <answer>`, two paths of JSON files. The request has the arguments of
`build`, the answer what it returns.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

#: The message that lists the kernels starts so. It is no documented contract, so its reader checks all of it.
LAYERS = "Layers:"


def build(path: str, shapes: dict[str, list[int]], compute_capability: str | None) -> dict[str, Any]:
    """What the parser and the builder say of a file.

    Args:
        path: the path of the file.
        shapes: the shape of each input, by name.
        compute_capability: the name of a member of `ComputeCapability`, "SM86"; `None`: the builder's default.

    Returns:
        A dict with "unparsed", the errors of the parser as lists of node name, operator and reason; "errors", those of
        the builder; and "layers", the messages that start with `LAYERS`, from a build that succeeded.
    """
    import tensorrt_rtx

    errors: list[str] = []
    layers: list[str] = []

    class Log(tensorrt_rtx.ILogger):
        def log(self, severity: Any, message: str) -> None:
            if message.startswith(LAYERS):
                layers.append(message)
            elif severity in (self.ERROR, self.INTERNAL_ERROR):
                errors.append(message)

    log = Log()
    builder = tensorrt_rtx.Builder(log)
    network = builder.create_network()
    parser = tensorrt_rtx.OnnxParser(network, log)
    if not parser.parse_from_file(path):
        found = [parser.get_error(index) for index in range(parser.num_errors)]
        unparsed = [[error.node_name(), error.node_operator(), error.desc()] for error in found]
        return {"unparsed": unparsed or [["", "", "the parser says no reason"]], "errors": errors, "layers": []}
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt_rtx.ProfilingVerbosity.DETAILED  # so that kernels name their nodes
    config.max_aux_streams = 0  # no lines for the synchronization of streams
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(tensorrt_rtx.ComputeCapability.__members__[compute_capability], 0)
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [value.name for value in inputs if -1 in value.shape]
    for name in dynamic:
        profile.set_shape(name, *[shapes[name]] * 3)
    if dynamic:
        config.add_optimization_profile(profile)
    errors.clear()  # what the parser mentions and survives, such as the missing GPU
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return {"unparsed": [], "errors": errors or ["the builder says no reason"], "layers": []}
    return {"unparsed": [], "errors": [], "layers": layers}


if __name__ == "__main__":
    request, answer = (pathlib.Path(argument) for argument in sys.argv[1:])
    answer.write_text(json.dumps(build(**json.loads(request.read_text()))))
