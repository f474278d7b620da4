"""Frames of a performance, drawn one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.identities import NAMED
from talksplat_export.heads.model import Region
from talksplat_export.heads.procedural import NECK, ROOT, ProceduralHead
from talksplat_export.heads.rendering import Rendering, render

from .camera import Camera, opengl_camera_to_world
from .head_motion import rigid_transforms
from .layout import CaptureFolder
from .performance import Performance, perform, write_tracks
from .script import spoken
from .speech import Speech, Voice, join

FloatImage = NDArray[np.float32]

_NECK_REACHES_UP = 0.08  # of the picture's height, behind the chin
_BACKDROP_TOP = np.array([0.62, 0.66, 0.70])
_BACKDROP_BOTTOM = np.array([0.46, 0.49, 0.54])


@dataclass(frozen=True)
class Scene:
    """All that a capture depends on. ``seconds`` of training sentences come first, then
    ``held_out_seconds`` of sentences that nothing is trained on."""

    identity: str
    voice: Voice
    seconds: float
    held_out_seconds: float
    size: int
    seed: int


class Torso(ProceduralHead):
    """Neck and clothes without the head on top."""

    def __init__(self) -> None:
        super().__init__()
        kept = np.isin(self.face_regions, [Region.NECK, Region.CLOTHES])
        self.faces = self.faces[kept]
        self.uv_faces = self.uv_faces[kept]
        self.face_regions = self.face_regions[kept]


class Recording:
    """One capture: a performance before the camera, and the folder it is written to.

    The head is fixed in head space, lights included, and the camera moves around it. The torso
    does not move with the head: it is a still plate that every frame shows behind the head, and
    the neck bends in between.
    """

    def __init__(self, scene: Scene, path: Path) -> None:
        self.scene = scene
        self.folder = CaptureFolder(path)
        self.folder.create()
        self.camera = Camera(scene.size)
        self.model = ProceduralHead()
        self.identity = NAMED[scene.identity]

    def __len__(self) -> int:
        return len(self.performance)

    @cached_property
    def performance(self) -> Performance:
        return perform(join(self._parts), self.scene.seed)

    @property
    def training_frames(self) -> int:
        """Frames before this one are for training."""
        return len(self.performance) - (
            len(self._parts[-1].pcm) // 640 if self.scene.held_out_seconds > 0 else 0
        )

    def missing_frames(self) -> list[int]:
        """Frames that are not complete yet."""
        return [frame for frame in range(len(self)) if not self.folder.has_frame(frame)]

    def write_tracks(self) -> None:
        """Writes everything but the pictures of the frames."""
        write_tracks(self.performance, self.folder.path)
        cameras = opengl_camera_to_world(self.camera.viewmats(self._head_transforms))
        split = self.training_frames
        parts = {"train": range(split), "val": range(split, len(self))}
        for name, frames in parts.items():
            self.folder.write_transforms(name, frames, cameras, self.camera.focal, self.camera.size)

    def write_frame(self, frame: int) -> None:
        """Draws one frame and writes it with its masks and landmarks."""
        drawn, landmarks = self._draw(frame)
        layer = drawn.rgba.copy()
        # The torso of every frame is the plate's.
        layer[drawn.regions == Region.CLOTHES, 3] = 0.0
        image = layer[..., :3] * layer[..., 3:] + self._plate * (1.0 - layer[..., 3:])
        self.folder.write_frame(frame, _bytes(image), drawn.regions, _bytes(self._torso), landmarks)

    @cached_property
    def _parts(self) -> list[Speech]:
        scene = self.scene
        wanted = ((scene.seconds, False), (scene.held_out_seconds, True))
        return [
            spoken(scene.voice, seconds, held_out=held_out, seed=scene.seed)
            for seconds, held_out in wanted
            if seconds > 0
        ]

    @cached_property
    def _head_transforms(self) -> NDArray[np.float64]:
        pivot = self.model.joint_positions(self.identity)[NECK]
        return rigid_transforms(self.performance.neck_rotations, pivot)

    def _draw(self, frame: int) -> tuple[Rendering, NDArray[np.float64]]:
        """The head at rest before the moving camera, the torso turned the other way.

        Turning root and neck against each other leaves the head upright but shifts it; the
        camera shifts along.
        """
        rotation = self.performance.neck_rotations[frame].astype(np.float64)
        joints = np.zeros((len(self.model.joint_names), 3))
        joints[ROOT], joints[NECK] = -rotation, rotation
        positions = self.model.joint_positions(self.identity)
        torso = rigid_transforms(-rotation[None], positions[ROOT])[0]
        viewmat = self.camera.viewmat @ np.linalg.inv(torso)
        expression = self.performance.expression[frame]
        size = self.camera.size
        drawn = render(
            self.model, self.identity, expression, joints, viewmat, self.camera.K, size, size
        )
        vertices = self.model.vertices(self.identity, expression, joints)
        return drawn, self.camera.project(vertices[self.model.landmarks], viewmat)

    @cached_property
    def _plate(self) -> FloatImage:
        """[H,W,3] the torso over the background."""
        alpha = self._torso[..., 3:]
        return self._torso[..., :3] * alpha + self._background * (1.0 - alpha)

    @cached_property
    def _torso(self) -> FloatImage:
        """RGBA [H,W,4] of neck and clothes at rest, the neck going on behind the chin.

        What the head covers is drawn without it; all else keeps the head's shadow.
        """
        size = self.camera.size
        whole, torso = (
            render(model, self.identity, None, None, self.camera.viewmat, self.camera.K, size, size)
            for model in (self.model, Torso())
        )
        layer = torso.rgba.copy()
        seen = np.isin(whole.regions, [Region.NECK, Region.CLOTHES])
        layer[seen] = whole.rgba[seen]
        return _neck_upward(layer, torso.regions == Region.NECK, round(_NECK_REACHES_UP * size))

    @cached_property
    def _background(self) -> FloatImage:
        size = self.camera.size
        down = np.linspace(0.0, 1.0, size)[:, None, None]
        across = np.linspace(-1.0, 1.0, size)[None, :, None]
        backdrop = _BACKDROP_TOP + (_BACKDROP_BOTTOM - _BACKDROP_TOP) * down
        backdrop = backdrop * (1.0 - 0.12 * across**2)
        return self.folder.write_background(_bytes(backdrop)).astype(np.float32) / np.float32(255)


def _neck_upward(layer: FloatImage, neck: NDArray[np.bool_], rows: int) -> FloatImage:
    """Goes on with the colour below the neck's upper edge for ``rows`` rows above it."""
    filled = layer.copy()
    for column in np.flatnonzero(neck.any(axis=0)):
        solid = np.flatnonzero(neck[:, column] & (layer[:, column, 3] == 1.0))
        if len(solid):
            top = int(solid[0])
            filled[max(top - rows, 0) : top, column] = layer[top, column]
    return filled


def _bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(image, 0.0, 1.0) * 255, np.uint8)
