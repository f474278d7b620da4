"""Operations of a torch computation, counted while it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


class FlopCounter(FlopCounterMode):
    """Counts a sparse product by its entries, where torch counts it as if it were dense."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping={torch.ops.aten.mm: _count_mm})


def _count_mm(left: Tensor, right: Tensor, **_: Any) -> int:
    entries = left.numel() if left.layout == torch.strided else left._nnz()
    return 2 * entries * right.shape[1]


_count_mm._get_raw = True  # type: ignore[attr-defined]  # tensors, not their shapes
