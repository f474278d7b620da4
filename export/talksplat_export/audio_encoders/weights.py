"""Weights too large for an ONNX file become inputs of the graph.

A protobuf message ends at 2 GiB: XLS-R-1B has 3.9 GB of weights. ONNX would keep them in a file of
its own beside the graph; a bundle refuses graphs that read other files, so they are constant inputs
from a ``.safetensors`` file, as baked tensors are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

LARGEST_GRAPH = 2**31 - 2**25
"""Bytes of weights that still fit into an ONNX file, with room for the graph itself."""


class ConstantWeights(nn.Module):
    """A module whose weights follow its input: ``forward(pcm, *weights)``."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        # Not a submodule: its weights are no part of the graph.
        self._module = (module,)
        self._names = names

    def forward(self, pcm: Tensor, *weights: Tensor) -> Tensor:
        """See the class."""
        values = dict(zip(self._names, weights, strict=True))
        return functional_call(self._module[0], values, (pcm,))


class RowLinear(nn.Module):
    """A linear layer whose matrix is laid out for row vectors [in,out]: no transposition is left
    for the runtime, which cannot do it ahead of time where the matrix is an input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.matrix = nn.Parameter(linear.weight.detach().T.contiguous(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] to [...,out]."""
        product = x @ self.matrix
        return product if self.bias is None else product + self.bias


def constant_weights(module: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module as it is if its weights fit into an ONNX file, else one that is given them.

    Returns:
        The module to export, and the tensors that follow its input, in order.
    """
    if sum(tensor.nbytes for tensor in module.state_dict().values()) <= LARGEST_GRAPH:
        return module, {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, RowLinear(child))
                child.weight = nn.Parameter(torch.empty(0))  # not two matrices at a time
    constants = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    return ConstantWeights(module, tuple(constants)), constants
