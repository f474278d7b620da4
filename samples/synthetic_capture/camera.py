"""The camera of a capture and how head motion becomes camera motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FOCAL_AT_512 = 1200.0
_DISTANCE = 0.7


@dataclass(frozen=True)
class Camera:
    """Square pictures, a still camera straight in front of the face."""

    size: int = 512

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return _FOCAL_AT_512 * self.size / 512

    @property
    def K(self) -> NDArray[np.float64]:  # noqa: N802 (the field's own name)
        """Intrinsics [3,3], principal point in the middle."""
        return np.array(
            [[self.focal, 0, self.size / 2], [0, self.focal, self.size / 2], [0, 0, 1.0]]
        )

    @property
    def viewmat(self) -> NDArray[np.float64]:
        """World → camera [4,4], OpenCV axes: y and z turn over, the origin is in front."""
        viewmat = np.diag([1.0, -1.0, -1.0, 1.0])
        viewmat[2, 3] = _DISTANCE
        return viewmat

    def viewmats(self, head_transforms: NDArray[np.float64]) -> NDArray[np.float64]:
        """[T,4,4] cameras that see the resting head as this one sees the moved one."""
        return self.viewmat @ head_transforms

    def project(
        self, points: NDArray[np.floating], viewmat: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """World points [N,3] as ``viewmat`` [4,4] sees them, x and y in pixels [N,2]."""
        in_camera = points @ viewmat[:3, :3].T + viewmat[:3, 3]
        on_plane = in_camera @ self.K.T
        return np.asarray(on_plane[:, :2] / on_plane[:, 2:])


def opengl_camera_to_world(viewmats: NDArray[np.float64]) -> NDArray[np.float64]:
    """[T,4,4] world → camera with OpenCV axes to camera → world with OpenGL ones (+y up, -z
    forward), as NeRF-style transforms files hold them."""
    return np.asarray(np.linalg.inv(viewmats) @ np.diag([1.0, -1.0, -1.0, 1.0]), np.float64)
