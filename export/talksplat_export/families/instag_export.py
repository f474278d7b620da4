"""InsTaG, as export sees it."""

from __future__ import annotations

from torch import Tensor, nn

from talksplat_export.families.instag import InsTaG
from talksplat_export.families.instag_graphs import FaceGraph, MouthGraph, bake_face, bake_mouth
from talksplat_export.families.talkinggaussian_export import GaussianTalkerExport


class InsTaGExport(GaussianTalkerExport):
    """A checkpoint of InsTaG."""

    family = "instag"
    model: InsTaG

    def bake_face(self) -> dict[str, Tensor]:
        """See :class:`GaussianTalkerExport`."""
        return bake_face(self.model)

    def bake_mouth(self) -> dict[str, Tensor]:
        """See :class:`GaussianTalkerExport`."""
        return bake_mouth(self.model)

    def face_graph(self) -> nn.Module:
        """See :class:`GaussianTalkerExport`."""
        return FaceGraph(self.model, list(self.baked_face)).eval()

    def mouth_graph(self) -> nn.Module:
        """See :class:`GaussianTalkerExport`."""
        return MouthGraph(self.model, list(self.baked_mouth)).eval()
