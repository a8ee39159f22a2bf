"""`SideBySide`: run two graphs in step and look at the calls that belong together, a float model and its copy, say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tensorflow_quantization.model.graph import Call, LayerGraph
from tensorflow_quantization.model.interpreter import CallFunction, Computed, Interpreter, Run, compute, input_tensors

#: Gets what the call of the reference read and returned, then the same of its partner.
Compare = Callable[[Computed, Computed], None]


def pair_calls(reference: LayerGraph, other: LayerGraph, prefix: str = "") -> list[tuple[Call, Call]]:
    """The calls of two graphs that belong together, by the paths of their layers.

    A layer called several times is paired call by call, in the order of the graphs. What only one of the graphs has,
    or calls more often, has no partner. Partners need not compute the same: a layer of the copy may have its activation
    as a layer of its own.

    Args:
        reference: the graph of the original model.
        other: the graph of its copy.
        prefix: what the names of replaced layers in `other` start with: with "quant_" the call "block/quant_conv" is
            the partner of "block/conv".

    Returns:
        (call of `reference`, call of `other`), in the order of `other`.
    """
    originals, copies = _by_path(reference), _by_path(other)
    partners: dict[int, Call] = {}
    taken: set[str] = set()
    # Short names first: a layer that kept its name may be called like another one with the prefix.
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
    """Runs two graphs on the same inputs, in step.

    Of both runs only the tensors that are still needed are in memory.

    Args:
        reference: the graph of the original model, flat to compare within nested models.
        other: the graph of its copy, flat too then. It may have more calls, or fewer.
        pairs: the calls that belong together, (call of `reference`, call of `other`), each in one pair at most; by
            default the calls with equal paths, see `pair_calls`.

    Raises:
        ValueError: a call is in two pairs, or is no call of its graph.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tensorflow_quantization import quantize_model
    >>> from tensorflow_quantization.model.graph import LayerGraph
    >>> from tensorflow_quantization.model.side_by_side import SideBySide, pair_calls
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs))
    >>> graphs = [LayerGraph.trace(m).flatten() for m in (model, quantize_model(model))]
    >>> def compare(exact, quantized):
    ...     error = keras.ops.max(keras.ops.abs(exact.outputs[0] - quantized.outputs[0]))
    ...     print(exact.call.path, quantized.call.path, float(error) < 1)
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
        """The outputs of both graphs, each in the structure that its model returns.

        Args:
            inputs: one value for each input, see `Interpreter.run`; both graphs read them.
            compare: called with each pair of calls, in the order of the other graph.
            call_function: called in place of every call of the other graph.

        Raises:
            ValueError: `inputs` or what `call_function` returned has another number of values than needed.
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
        """Run both graphs on each batch of data; memory does not grow with the batches.

        Args:
            batches: of data as `predict_on_batch` takes it.
            compare, call_function: see `run`.

        Raises:
            ValueError: a batch does not fit the model's inputs.
        """
        for batch in batches:
            self.run(input_tensors(self._reference.graph, batch), compare, call_function)


class _Reference:
    """The run of the reference: it goes as far as it is asked to, and keeps what it will be asked for."""

    def __init__(self, run: Run, paired: Iterable[Call]):
        self._run = run
        self._paired = {id(call) for call in paired}
        self._kept: dict[int, Computed] = {}

    def compute(self, call: Call) -> Computed:
        """What a paired call read and returned; each can be asked for once."""
        while id(call) not in self._kept:
            self._step()
        return self._kept.pop(id(call))

    def outputs(self) -> Any:
        """The outputs of the graph, after the calls that nobody asked for."""
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
