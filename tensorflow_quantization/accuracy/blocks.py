"""`blocks_of`: cuts a graph into blocks of a few kernels, where little data passes from one to the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tensorflow_quantization.model.graph import Call, LayerGraph, Tensor

#: Kernels in a block, at most: as many as an inverted residual with squeeze and excitation has.
_KERNELS = 5


@dataclass(frozen=True)
class Block:
    """Consecutive calls of a graph.

    Attributes:
        calls: the calls, in topological order.
        inputs: what they read of the calls before, and of the inputs of the graph.
        outputs: what later calls read of theirs, or the graph returns.
    """

    calls: list[Call]
    inputs: list[Tensor]
    outputs: list[Tensor]

    def part(self, graph: LayerGraph) -> LayerGraph:
        """Returns the block as a graph of its own."""
        return LayerGraph(graph.model, self.inputs, self.outputs, self.inputs, self.outputs, self.calls)


def blocks_of(graph: LayerGraph, kernels: Callable[[Call], int], known: Callable[[Tensor], bool]) -> list[Block]:
    """Cuts a graph into blocks.

    A block ends where the tensors that later calls need are the smallest, within the range that a number of kernels
    gives. So residual blocks and bottlenecks stay whole, as block-wise reconstruction needs it (arXiv:2102.05426,
    section 3.2).

    Args:
        graph: the graph; each of its calls gets into one block.
        kernels: the number of kernels of a call.
        known: whether a tensor may pass from block to block.

    Returns:
        The blocks in topological order. One has more than 5 kernels where its only call has, or no tensor may pass
        before.
    """
    needed = _needed_after(graph)
    blocks: list[Block] = []
    start = 0
    while start < len(graph.calls):
        count, best, least = 0, None, math.inf
        for index in range(start, len(graph.calls)):
            count += kernels(graph.calls[index])
            if count > _KERNELS and best is not None:
                break
            if index == len(graph.calls) - 1 or all(map(known, needed[index])):
                size = sum(map(_elements, needed[index])) if count else math.inf
                if size <= least:
                    best, least = index, size
        stop = len(graph.calls) if best is None else best + 1
        blocks.append(_block(graph, start, stop, needed[stop - 1]))
        start = stop
    return blocks


def _needed_after(graph: LayerGraph) -> list[list[Tensor]]:
    """Returns, for each call, the tensors that exist after it and are read later, or returned."""
    needed: list[list[Tensor]] = [[] for _ in graph.calls]
    alive = {id(tensor): tensor for tensor in graph.outputs}
    for index in range(len(graph.calls) - 1, -1, -1):
        call = graph.calls[index]
        needed[index] = list(alive.values())
        for tensor in call.outputs:
            alive.pop(id(tensor), None)
        alive.update({id(tensor): tensor for tensor in call.inputs})
    return needed


def _block(graph: LayerGraph, start: int, stop: int, needed: list[Tensor]) -> Block:
    calls = graph.calls[start:stop]
    made = {id(tensor) for call in calls for tensor in call.outputs}
    read = {id(tensor): tensor for call in calls for tensor in call.inputs if id(tensor) not in made}
    return Block(calls, list(read.values()), [tensor for tensor in needed if id(tensor) in made])


def _elements(tensor: Tensor) -> int:
    return math.prod(size or 1 for size in tensor.shape)
