"""What a family tells export: its graphs, its tensors, its manifest and its own answer.

One class per family, in ``families/<family>_export.py``. ``export.py`` and ``verify.py`` know
families only through this class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from talksplat.manifest import Manifest, Provenance

Array = NDArray[Any]
ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Graph:
    """A torch module that becomes one ONNX file.

    Attributes:
        name: name of the graph; the file is ``<name>.onnx``.
        module: what is exported, in evaluation mode.
        inputs: example tensors by name, in the order of ``module.forward``.
        outputs: names of what ``module.forward`` returns, in order.
        free_axes: input → axis → name of its size; every other axis is fixed.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    free_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """What one graph must answer: its inputs (constants left out) and the published outputs."""

    inputs: Mapping[str, FloatArray]
    outputs: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Reference:
    """A clip as the checkpoint itself renders it, nothing baked, in torch.

    Attributes:
        probes: graph → what it must answer at some points of the clip.
        frames: [T,H,W,3] uint8.
        features: what the session is given instead of hearing the clip, as its argument
            ``features``; None where the bundle holds an audio encoder.
    """

    probes: Mapping[str, list[Probe]]
    frames: ByteImage
    features: FloatArray | None = None


class FamilyExport(ABC):
    """One checkpoint, seen by export.

    Class attributes are the family's declaration: ``opset`` of the graphs, ``tolerances`` (largest
    absolute difference that ``verify`` accepts, per graph) and ``frames_psnr_db`` (least PSNR of
    final frames).
    """

    family: ClassVar[str]
    opset: ClassVar[int] = 18
    tolerances: ClassVar[Mapping[str, float]]
    frames_psnr_db: ClassVar[float] = 50.0

    @abstractmethod
    def graphs(self) -> list[Graph]:
        """The graphs, in the order in which a frame runs them."""

    @abstractmethod
    def tensors(self) -> dict[str, dict[str, Array]]:
        """``.safetensors`` file → name → array."""

    @abstractmethod
    def manifest(self, provenance: Provenance, created_with: dict[str, str]) -> Manifest:
        """The manifest without parity and without the list of files."""

    @abstractmethod
    def reference(self, pcm: FloatArray) -> Reference:
        """Render a clip, 16 kHz mono in -1..1, with the checkpoint's own networks."""
