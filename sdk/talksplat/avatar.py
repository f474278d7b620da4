"""The door to the runtime: ``talksplat.load("ada.avatar").session()``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat import backends, families
from talksplat.bundle import Bundle
from talksplat.errors import InputError
from talksplat.families.base import Family
from talksplat.manifest import Manifest
from talksplat.session import Session
from talksplat.tracks import Track, check_upper_face, check_viewmats, read_pose
from talksplat.video import read_image, resize

ByteImage = NDArray[np.uint8]
LOOK_AHEADS = ("default",)


class Avatar:
    """A loaded avatar. Immutable and thread-safe; makes any number of sessions.

    Args:
        bundle: an opened bundle.
        choice: what runs its graphs, and why.
        threads: CPU threads that the rasterizer may use.

    Raises:
        BundleError: the bundle does not hold what its family needs.
        BackendError: the backend refuses a graph.
    """

    def __init__(self, bundle: Bundle, choice: backends.Choice, threads: int) -> None:
        self.bundle = bundle
        self.backend = choice.backend.name
        self.backend_reason = choice.reason
        self.threads = threads
        self._family: Family = families.load(bundle, choice.backend, threads)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    def session(
        self,
        fps: int = 25,
        look_ahead: str = "default",
        *,
        pose: str | os.PathLike[str] | ArrayLike | None = None,
        upper_face: ArrayLike | None = None,
        background: str | os.PathLike[str] | ByteImage | None = None,
    ) -> Session:
        """Begin to speak. Graphs are warmed up here, so that the first frame is not late.

        Args:
            fps: frames per second of the output; the model itself runs at 25.
            look_ahead: future audio that a frame may use; ``"default"`` is what the avatar was
                trained with, the only choice of this family.
            pose: camera track: ``viewmats`` [T,4,4] world to camera (OpenCV axes), or a file that
                :func:`talksplat.tracks.read_pose` reads; played forth and back. By default the
                track of the bundle.
            upper_face: blinks and brows, [T,6]: action units 1, 4, 5, 6, 7, 45 in 0..1, played
                forth and back. By default the track of the bundle.
            background: what is behind the avatar: [H,W,3] uint8 of the avatar's size, or a
                picture file, which is scaled to it. By default the plate of the bundle.

        Raises:
            InputError: an argument is out of range or a file cannot be read.
        """
        if look_ahead not in LOOK_AHEADS:
            raise InputError(
                f"look_ahead must be one of {', '.join(LOOK_AHEADS)}, found {look_ahead!r}."
            )
        return Session(
            self._family,
            fps=fps,
            viewmats=self._viewmats(pose),
            upper_face=self._upper_face(upper_face),
            background=self._background(background),
        )

    def _viewmats(self, pose: str | os.PathLike[str] | ArrayLike | None) -> Track:
        if pose is None:
            return self._family.viewmats
        if isinstance(pose, str | os.PathLike):
            return read_pose(Path(pose))
        return Track(check_viewmats(pose))

    def _upper_face(self, upper_face: ArrayLike | None) -> Track:
        if upper_face is None:
            return self._family.upper_face
        return Track(check_upper_face(upper_face))

    def _background(
        self, background: str | os.PathLike[str] | ByteImage | None
    ) -> ByteImage | None:
        if isinstance(background, str | os.PathLike):
            video = self.manifest.video
            return resize(read_image(Path(background)), video.width, video.height)
        return background


def load(path: str | os.PathLike[str], backend: str = "auto", threads: int | None = None) -> Avatar:
    """Open an avatar bundle and load its graphs.

    Args:
        path: the bundle, a folder such as ``ada.avatar``.
        backend: what runs the graphs; ``"auto"`` takes the best that this machine has and says
            why in ``Avatar.backend_reason``.
        threads: CPU threads that a graph or the rasterizer may use; by default every core of this
            process.

    Raises:
        BundleError: missing, damaged, unsafe or from a newer schema.
        BackendError: the backend is unknown or cannot be used here.
        InputError: ``threads`` is less than 1.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, found {threads}.")
    threads = threads or backends.default_threads()
    return Avatar(Bundle.open(path), backends.choose(backend, threads), threads)
