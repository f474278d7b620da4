"""The bias-free perceptron all deformation fields are made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MultilayerPerceptron(nn.Module):
    """``Linear`` layers without bias, ReLU between them, nothing after the last.

    State keys are ``net.{i}.weight``, as in TalkingGaussian, InsTaG and SDTalk checkpoints.

    Args:
        widths: input width, hidden widths, output width.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            nn.Linear(n_in, n_out, bias=False) for n_in, n_out in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.after_first_layer(self.net[0](x))

    def after_first_layer(self, hidden: Tensor) -> Tensor:
        """The rest of the network, given the first layer's output before its ReLU.

        Without biases the first layer is a sum over blocks of its input, so whatever block is
        constant can be baked; this is where the baked sum comes back in.
        """
        for layer in self.net[1:]:
            hidden = layer(torch.relu(hidden))
        return hidden
