"""Tensors of a bundle with the shape and dtype that a family needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from talksplat.bundle import Bundle
from talksplat.errors import BundleError


class TensorReader:
    """Reads each ``.safetensors`` file of a bundle once and checks what is taken from it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._files: dict[str, dict[str, NDArray[Any]]] = {}

    def get(
        self, file: str, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32
    ) -> NDArray[Any]:
        """One tensor; -1 in ``shape`` stands for any size of at least 1.

        Raises:
            BundleError: missing, or of another shape or dtype.
        """
        if file not in self._files:
            self._files[file] = self._bundle.tensors(file)
        tensor = self._files[file].get(name)
        if tensor is None:
            raise BundleError(f"{file} of {self._bundle.path} has no tensor {name!r}.")
        fits = len(shape) == tensor.ndim and all(
            size == expected or (expected == -1 and size > 0)
            for size, expected in zip(tensor.shape, shape, strict=True)
        )
        if not fits or tensor.dtype != dtype:
            raise BundleError(
                f"Tensor {name!r} in {file} of {self._bundle.path} expects {np.dtype(dtype)} "
                f"{list(shape)} (-1: any), found {tensor.dtype} {list(tensor.shape)}."
            )
        return np.ascontiguousarray(tensor)
