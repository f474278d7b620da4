"""Projected normalised coordinate code (PNCC): a face mesh coloured with its own coordinates.

D3-Talker's facial motion is the difference of the PNCC of an expression to the PNCC of none
(paper section 3.2). Training and the runtime both draw it here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat.errors import InputError
from talksplat.manifest import PnccContract
from talksplat.mesh import render_attributes

FloatArray = NDArray[np.float32]


class PnccRenderer:
    """Draws the PNCC of expressions of one head, without pose.

    Args:
        template: [V,3] vertices in head space at zero expression.
        basis: [E,V,3] offset of every vertex per unit of each expression coefficient.
        faces: [F,3] vertex indices.
        colors: [V,3] normalised coordinates, drawn as they are.
        camera: image size and orthographic camera.

    Raises:
        InputError: the shapes do not belong together.
    """

    def __init__(
        self,
        template: ArrayLike,
        basis: ArrayLike,
        faces: ArrayLike,
        colors: ArrayLike,
        camera: PnccContract,
    ) -> None:
        self._template = np.ascontiguousarray(template, np.float32)
        self._basis = np.ascontiguousarray(basis, np.float32)
        self._faces = np.ascontiguousarray(faces, np.int32)
        self._colors = np.ascontiguousarray(colors, np.float32)
        self._camera = camera
        vertices = self._template.shape
        if (
            len(vertices) != 2
            or vertices[1] != 3
            or self._basis.ndim != 3
            or self._basis.shape[1:] != vertices
            or self._colors.shape != vertices
        ):
            raise InputError(
                "PNCC expects template [V,3], basis [E,V,3] and colors [V,3], found "
                f"{list(vertices)}, {list(self._basis.shape)} and {list(self._colors.shape)}."
            )
        self.neutral = self.render(np.zeros(self.expression_size, np.float32))

    @property
    def expression_size(self) -> int:
        """E, the number of expression coefficients."""
        return len(self._basis)

    def render(self, expression: ArrayLike) -> FloatArray:
        """The PNCC image [H,W,3] of one expression [E].

        Raises:
            InputError: not E finite numbers.
        """
        expression = np.asarray(expression, np.float32)
        if expression.shape != (self.expression_size,):
            raise InputError(
                f"An expression has shape [{self.expression_size}], found {list(expression.shape)}."
            )
        vertices = self._template + np.tensordot(expression, self._basis, axes=1)
        return render_attributes(
            self._to_screen(vertices),
            self._faces,
            self._colors,
            self._camera.width,
            self._camera.height,
            self._camera.background,
        )

    def difference(self, expression: ArrayLike) -> FloatArray:
        """PNCC of ``expression`` minus PNCC of none, [3,H,W]: the input of E_diff.

        Raises:
            InputError: as :meth:`render`.
        """
        difference = self.render(expression) - self.neutral
        return np.ascontiguousarray(difference.transpose(2, 0, 1))

    def _to_screen(self, vertices: FloatArray) -> FloatArray:
        """Head space (+y up, seen from +z) to pixels (y down) and depth (smaller is nearer)."""
        camera = self._camera
        screen = np.empty_like(vertices)
        screen[:, 0] = camera.width / 2 + camera.scale * (vertices[:, 0] - camera.centre[0])
        screen[:, 1] = camera.height / 2 - camera.scale * (vertices[:, 1] - camera.centre[1])
        screen[:, 2] = -vertices[:, 2]
        return screen
