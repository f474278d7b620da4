"""The door to the runtime: ``talksplat.load("ada.avatar").session()``."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import get_args
from weakref import WeakSet

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat import backends, families
from talksplat.backdrop import Backdrop, open_backdrop
from talksplat.bundle import Bundle
from talksplat.closing import Closing
from talksplat.errors import InputError
from talksplat.families.base import Family, Noise
from talksplat.manifest import Manifest
from talksplat.session import Session
from talksplat.speech_features import check_features, read_features
from talksplat.tracks import (
    Track,
    as_array,
    check_upper_face,
    check_viewmats,
    read_pose,
    read_upper_face,
)

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
LOOK_AHEADS = ("default",)


class Avatar(Closing):
    """A loaded avatar. Thread-safe; makes any number of sessions.

    It holds memory, on a GPU too, until it is closed or dropped, sessions included::

        with talksplat.load("ada.avatar") as avatar, avatar.session() as session:
            ...

    Args:
        bundle: an opened bundle.
        choice: what runs its graphs, and why; closed with the avatar.
        threads: CPU threads that a graph or the rasterizer may use.

    Raises:
        BundleError: the bundle does not hold what its family needs.
        BackendError: the backend refuses a graph.
    """

    def __init__(self, bundle: Bundle, choice: backends.Choice, threads: int) -> None:
        self.bundle = bundle
        self.backend = choice.backend.name
        self.backend_reason = choice.reason
        self.passed_over = choice.passed_over
        self.threads = threads
        self._backend = choice.backend
        self._lock = RLock()
        self._closed = False
        self._sessions: WeakSet[Session] = WeakSet()
        try:
            self._family: Family = families.load(bundle, choice.backend)
        except BaseException:
            choice.backend.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    @property
    def has_audio_encoder(self) -> bool:
        """Whether the avatar hears audio itself; otherwise a session needs ``features``."""
        return self.manifest.audio.blocks is not None

    def silence(self, frames: int) -> FloatArray:
        """Features [frames,W,D] that are all zero, to try an avatar without speech."""
        tokens, size = self.manifest.window.tokens, self.manifest.audio.feature_size
        return np.zeros((frames, tokens, size), np.float32)

    def session(
        self,
        fps: int = 25,
        look_ahead: str = "default",
        *,
        features: str | os.PathLike[str] | ArrayLike | None = None,
        pose: str | os.PathLike[str] | ArrayLike | None = None,
        upper_face: str | os.PathLike[str] | ArrayLike | None = None,
        background: str | os.PathLike[str] | ByteImage | None = None,
        noise: int | Mapping[str, ArrayLike] | None = None,
        frames: backends.FrameMemory = "host",
    ) -> Session:
        """Begin to speak. Graphs are warmed up here, so that the first frame is not late.

        The tracks (pose, upper face, background) play forth and back by one clock, a row per frame
        of the model, through all utterances of the session. Where the pose is a transforms file
        with an ``img_id`` per frame, an OpenFace table and a folder of numbered pictures are read
        at these frames, as they belong to one recording.

        Args:
            fps: frames per second of the output; the model itself runs at 25.
            look_ahead: future audio that a frame may use; ``"default"`` is what the avatar was
                trained with, the only choice there is.
            features: the speech's precomputed features instead of those of the avatar's own audio
                encoder, needed if it has none: [T,W,D] per frame or [L,D] tokens, or an ``.npy``
                file with either. Pushed audio then only counts time; frame i of every utterance
                hears window i, and zeros beyond the last.
            pose: camera track: ``viewmats`` [T,4,4] world to camera (OpenCV axes), or a file that
                :func:`talksplat.tracks.read_pose` reads. By default the track of the bundle.
            upper_face: blinks and brows, [T,6] in the units the networks eat (docs/runtime.md), or
                a file that :func:`talksplat.tracks.read_upper_face` reads: ``.npy``, or OpenFace's
                ``.csv``. For SDTalk the eyes: two lid openings and a width of each. By default
                the track of the bundle.
            background: what is behind the avatar: [H,W,3] or [T,H,W,3] uint8 of the avatar's size,
                a picture file, which is scaled to it, or a folder of pictures, of which transparent
                ones are laid over the bundle's plate. By default that plate.
            noise: for a refiner whose noise is an input: a seed, from which every frame draws its
                own maps, or maps ``noise0`` … that stay the same. By default the seed 0.
            frames: ``"host"`` for NumPy arrays, or ``"device"`` to leave images and alphas on the
                GPU that made them; see :class:`talksplat.Frame`.

        Raises:
            InputError: an argument is out of range, does not suit the avatar or its backend, a
                file cannot be read, or the avatar is closed.
            BackendError: the backend has no room for another session, or failed.
            DeviceLostError: the GPU is gone; load the avatar again.
        """
        if frames not in get_args(backends.FrameMemory):
            known = " or ".join(map(repr, get_args(backends.FrameMemory)))
            raise InputError(f"frames must be {known}, found {frames!r}.")
        if look_ahead not in LOOK_AHEADS:
            raise InputError(
                f"look_ahead must be one of {', '.join(LOOK_AHEADS)}, found {look_ahead!r}."
            )
        scene = self._family.scene
        if pose is not None:
            scene = replace(scene, viewmats=_viewmats(pose))
        if upper_face is not None:
            numbers = scene.viewmats.numbers
            scene = replace(scene, upper_face=self._upper_face(upper_face, numbers))
        if background is not None:
            numbers = scene.viewmats.numbers
            scene = replace(scene, background=self._backdrop(background, numbers))
        given = None if features is None else _features(features)
        with self._lock:
            if self._closed:
                raise InputError("The avatar is closed; load it again with talksplat.load().")
            session = Session(
                self._family,
                fps=fps,
                scene=scene,
                features=given,
                noise=_noise(noise),
                memory=frames,
            )
            self._sessions.add(session)
        return session

    def close(self) -> None:
        """Close the sessions that are still open, and free everything. Twice does no harm.

        Frames that were yielded stay as they are.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                with ExitStack() as closing:
                    closing.callback(self._backend.close)
                    for session in list(self._sessions):
                        closing.callback(session.close)

    def _upper_face(
        self, upper_face: str | os.PathLike[str] | ArrayLike, numbers: Sequence[int] | None
    ) -> Track:
        if isinstance(upper_face, str | os.PathLike):
            return read_upper_face(Path(upper_face), self._family.openface_scale, numbers)
        return Track(check_upper_face(upper_face))

    def _backdrop(
        self, background: str | os.PathLike[str] | ByteImage, numbers: Sequence[int] | None
    ) -> Backdrop:
        video, plate = self.manifest.video, self._family.scene.background.at(0)
        return open_backdrop(background, video.width, video.height, plate, numbers)


def _viewmats(pose: str | os.PathLike[str] | ArrayLike) -> Track:
    if isinstance(pose, str | os.PathLike):
        return read_pose(Path(pose))
    return Track(check_viewmats(pose))


def _features(features: str | os.PathLike[str] | ArrayLike) -> FloatArray:
    if isinstance(features, str | os.PathLike):
        return read_features(Path(features))
    return check_features(features)


def _noise(noise: int | Mapping[str, ArrayLike] | None) -> Noise | None:
    if noise is None:
        return None
    if not isinstance(noise, Mapping):
        try:
            return operator.index(noise)
        except TypeError as error:
            raise InputError(
                f"noise expects a seed or a mapping of names to maps, found {noise!r:.40}."
            ) from error
    return {name: as_array("noise", maps).astype(np.float32) for name, maps in noise.items()}


def load(
    path: str | os.PathLike[str],
    backend: str = "auto",
    threads: int | None = None,
    *,
    precision: backends.Precision = "fp32",
    progress: backends.Progress | None = None,
    stage_times: bool = False,
) -> Avatar:
    """Open an avatar bundle and load its graphs.

    With TensorRT an engine is built when an avatar is loaded for the first time on a device, which
    takes seconds to minutes, and kept for the next time; ``talksplat build`` does it ahead.

    Args:
        path: the bundle, a folder such as ``ada.avatar``.
        backend: what runs the graphs; ``"auto"`` takes the best that this machine has and says
            why in ``Avatar.backend_reason``.
        threads: CPU threads that a graph or the rasterizer may use; by default every core of this
            process.
        precision: of TensorRT's engines. ``"fp16"`` is faster and differs a little from what was
            trained; what it would spoil stays in float32. Other backends know ``"fp32"`` only.
        progress: told of engines that are being built, ``(what, done, of how many)``.
        stage_times: have ``Frame.timings`` name the stages of a frame on a GPU too, where a frame
            is one piece of work; events between them cost some microseconds each.

    Raises:
        BundleError: missing, damaged, unsafe or from a newer schema.
        BackendError: the backend is unknown or cannot be used here.
        DeviceLostError: the GPU was lost, and what used it is not closed yet.
        InputError: ``threads`` is less than 1, there is no such precision, or an environment
            variable is wrong.
        OutputError: an engine cannot be kept.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, found {threads}.")
    if precision not in get_args(backends.Precision):
        known = " or ".join(map(repr, get_args(backends.Precision)))
        raise InputError(f"precision must be {known}, found {precision!r}.")
    threads = threads or backends.default_threads()
    bundle = Bundle.open(path)
    return Avatar(
        bundle, backends.choose(backend, threads, precision, progress, stage_times), threads
    )
