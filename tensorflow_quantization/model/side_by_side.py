"""`SideBySide`: runs two graphs together and compares pairs of calls, of a float and a quantized model for example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.interpreter import CallFunction, Computed, Interpreter, Run, compute, input_tensors

#: Gets the call of the reference, then the call of the other graph, both with their inputs and outputs.
Compare = Callable[[Computed, Computed], None]


def pair_calls(reference: LayerGraph, other: LayerGraph, prefix: str = "") -> list[tuple[Call, Call]]:
    """Returns pairs of calls of two graphs that have the same path.

    The calls of a shared layer are paired in the order of the graphs. A layer has no pairs if only one graph has it, or
    if the graphs call it differently often. The calls of a pair can compute different things: in the copy, the
    activation of a layer can be a separate layer.

    Args:
        reference: the graph of the original model.
        other: the graph of its copy.
        prefix: str, the start of the names of replaced layers in `other`: with "quant_", "block/quant_conv" is paired
            with "block/conv". Default none.

    Returns:
        List of (call of `reference`, call of `other`), in the order of `other`.
    """
    originals, copies = _by_path(reference), _by_path(other)
    partners: dict[int, Call] = {}
    taken: set[str] = set()
    # Shortest paths first: the name of a layer that was not replaced can start with the prefix, too.
    for path in sorted(copies, key=len):
        before, slash, name = path.rpartition("/")
        original = before + slash + name.removeprefix(prefix)
        if original in taken or original not in originals:
            original = path
        if original in originals and len(originals[original]) == len(copies[path]):
            taken.add(original)
            partners.update((id(copy), call) for call, copy in zip(originals[original], copies[path], strict=True))
    return [(partners[id(call)], call) for call in other.calls if id(call) in partners]


class SideBySide:
    """Runs two graphs together on the same inputs. Only tensors that are still needed are in memory.

    Args:
        reference: the graph of the original model. Flatten both graphs to compare calls within nested models.
        other: the graph of its copy, which can have other calls.
        pairs: the calls to compare, a list of (call of `reference`, call of `other`); each call is in one pair at most.
            Default: the calls with equal paths, see `pair_calls`.

    Raises:
        ValueError: a call is in two pairs, or in the wrong graph.

    Examples:

    >>> import keras
    >>> import numpy as np
    >>> from tensorflow_quantization import quantize_model
    >>> from tensorflow_quantization.model.graph import LayerGraph
    >>> from tensorflow_quantization.model.side_by_side import SideBySide, pair_calls
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs))
    >>> graphs = [LayerGraph.trace(m).flatten() for m in (model, quantize_model(model))]
    >>> def compare(exact, quantized):
    ...     error = keras.ops.convert_to_numpy(exact.outputs[0] - quantized.outputs[0])
    ...     print(exact.call.path, quantized.call.path, bool(abs(error).max() < 1))
    >>> SideBySide(*graphs, pair_calls(*graphs, prefix="quant_")).run_batches([np.zeros((3, 4))], compare)
    dense quant_dense True
    """

    def __init__(self, reference: LayerGraph, other: LayerGraph, pairs: Sequence[tuple[Call, Call]] | None = None):
        self.pairs = pair_calls(reference, other) if pairs is None else list(pairs)
        self._reference, self._other = Interpreter(reference), Interpreter(other)
        self._partners = {id(call): partner for partner, call in self.pairs}
        for graph, calls in zip((reference, other), zip(*self.pairs, strict=True), strict=False):
            _check_once(calls, graph)

    def run(self, inputs: Any, compare: Compare, call_function: CallFunction = compute) -> tuple[Any, Any]:
        """Returns the outputs of both graphs, each in the structure that its model returns.

        Args:
            inputs: the inputs of both graphs, see `Interpreter.run`.
            compare: called with each pair of calls, in the order of the other graph.
            call_function: computes each call of the other graph; by default the call itself, at inference.

        Raises:
            ValueError: `inputs`, or the result of `call_function`, has a wrong number of values.
        """
        reference = _Reference(self._reference.start(inputs), [partner for partner, _ in self.pairs])
        run = self._other.start(inputs, call_function)
        del inputs  # the runs drop them after their last readers
        for call in self._other.graph.calls:
            if id(call) in self._partners:
                compare(reference.compute(self._partners[id(call)]), run.step())
            else:
                run.step()
        return reference.outputs(), run.outputs()

    def run_batches(self, batches: Iterable[Any], compare: Compare, call_function: CallFunction = compute) -> None:
        """Runs both graphs on each batch; memory does not grow with the number of batches.

        Args:
            batches: each as `predict_on_batch` takes it, see `model_inputs`.
            compare, call_function: see `run`.

        Raises:
            ValueError: a batch does not fit the inputs of the model.
        """
        for batch in batches:
            self.run(input_tensors(self._reference.graph, batch), compare, call_function)


class _Reference:
    """The run of the reference. It advances on demand, and keeps paired calls until they are compared."""

    def __init__(self, run: Run, paired: Iterable[Call]):
        self._run = run
        self._paired = {id(call) for call in paired}
        self._kept: dict[int, Computed] = {}

    def compute(self, call: Call) -> Computed:
        """Returns the computed form of a paired call; only once, since it is not kept after that."""
        while id(call) not in self._kept:
            self._step()
        return self._kept.pop(id(call))

    def outputs(self) -> Any:
        """Computes the remaining calls, and returns the outputs of the graph."""
        while not self._run.finished:
            self._step()
        return self._run.outputs()

    def _step(self) -> None:
        computed = self._run.step()
        if id(computed.call) in self._paired:
            self._kept[id(computed.call)] = computed


def _check_once(calls: Iterable[Call], graph: LayerGraph) -> None:
    free = {id(call) for call in graph.calls}
    for call in calls:
        if id(call) not in free:
            raise ValueError(
                f"{call.path!r} ({call.class_name}) is in two pairs, or is no call of the graph of "
                f"{graph.model.name!r}. Pass pairs (call of the reference, call of the other graph), each call once."
            )
        free.remove(id(call))


def _by_path(graph: LayerGraph) -> dict[str, list[Call]]:
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in graph.calls:
        calls[call.path].append(call)
    return calls
