"""A motion field's decoder with everything that never changes for an identity worked out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from talksplat_export.layers.multilayer_perceptron import MultilayerPerceptron


class BakedDecoder(nn.Module):
    """What a frame still computes of a bias-free perceptron at fixed points.

    The first layer's input is a concatenation, so ``W·[x; a⊙c] = W_x·x + (a·diag(c))·W_cᵀ``: the
    first term and the attention ``a`` are constants of the points. Of the last layer only the used
    outputs are kept, with their factors inside.

    Args:
        perceptron: two hidden layers.
        constant_width: width of ``x``; the rest of the input is conditions.
        columns: outputs that are used.
        factors: one per used output.
    """

    condition: Tensor
    hidden: Tensor
    output: Tensor

    def __init__(
        self,
        perceptron: MultilayerPerceptron,
        constant_width: int,
        columns: Sequence[int],
        factors: Sequence[float],
    ) -> None:
        super().__init__()
        first, hidden, output = (weight.detach().T for weight in perceptron.parameters())
        output = output[:, list(columns)] * output.new_tensor(factors)
        self.register_buffer("condition", first[constant_width:].contiguous())
        self.register_buffer("hidden", hidden.contiguous())
        self.register_buffer("output", output.contiguous())

    def forward(self, first: Tensor, attention: Tensor | None, condition: Tensor) -> Tensor:
        """Used outputs [N,·].

        Args:
            first: :func:`bake_first_layer` of the points, [N,H].
            attention: [N,A]; None where the condition is the same everywhere.
            condition: [1,A].
        """
        if attention is None:
            added = condition @ self.condition
        else:
            # The condition scales the matrix, not the attention of every Gaussian: no pass over N.
            added = attention @ (self.condition * condition.T)
        return torch.relu(torch.relu(first + added) @ self.hidden) @ self.output


def bake_first_layer(perceptron: MultilayerPerceptron, features: Tensor) -> Tensor:
    """The constant features [N,x] through their block of the first layer, [N,H]."""
    first = perceptron.net[0]
    assert isinstance(first, nn.Linear)
    return features @ first.weight[:, : features.shape[1]].T


def normalize_quats(quats: Tensor) -> Tensor:
    """As ``F.normalize``, which would copy the norms to the shape of the quaternions first."""
    norms: Tensor = torch.linalg.vector_norm(quats, dim=1, keepdim=True)
    return quats / norms.clamp_min(1e-12)
