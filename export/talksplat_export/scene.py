"""What is seen besides the Gaussians: cameras, background and what moves the upper face.

Checkpoints of TalkingGaussian, InsTaG and SDTalk hold none of it; their authors' code reads it
from the capture's folder at run time. A :class:`Scene` is that part of a capture, and a bundle's
default tracks and background come from it.

Layout of a capture as TalkingGaussian (Li et al., ECCV 2024) and its kin read it::

    transforms_train.json, transforms_val.json   focal_len, frames[i].img_id, .transform_matrix
    bc.jpg (or bc.png)                           the background
    torso_imgs/<img_id>.png                      RGBA, the torso without a head (may be absent)
    au.csv                                       OpenFace, one row per frame of the video
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from talksplat import schema
from talksplat.bundle import Bundle
from talksplat.errors import InputError
from talksplat.tensor_reader import TensorReader
from talksplat.tracks import UPPER_FACE_SIZE, check_upper_face, check_viewmats, read_upper_face

FloatArray = NDArray[np.float32]
ByteImage = NDArray[np.uint8]

_OPENFACE = np.ones(UPPER_FACE_SIZE, np.float32)  # intensities as OpenFace gives them
_MAX_TEXT_BYTES = 256 * 2**20
_MAX_SIDE = 4096
_SIZE = 512
_FOCAL_PER_WIDTH = 1200 / 512  # what trackers of talking-head videos find for 512 pixels, about
_FILL = 0.8


@dataclass(frozen=True)
class Scene:
    """Cameras, background and upper face of one person's capture.

    Attributes:
        viewmats: [T,4,4] float32, world → camera, OpenCV axes.
        K: [3,3] float64, pixels; the principal point is the picture's centre.
        width: of a frame, pixels.
        height: of a frame, pixels.
        background: uint8 [H,W,3].
        upper_face: [T,6] float32, what moves eyes and brows, in the units the family's network
            eats: OpenFace intensities of :data:`talksplat.tracks.ACTION_UNITS` (0..5, the last
            0..2) for TalkingGaussian and InsTaG, lid openings and eye widths in pixels for SDTalk.
        notes: one sentence per thing that was assumed because nothing said it; to be printed.
    """

    viewmats: FloatArray
    K: NDArray[np.float64]
    width: int
    height: int
    background: ByteImage
    upper_face: FloatArray
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_viewmats(self.viewmats)
        check_upper_face(self.upper_face)
        if len(self.upper_face) != len(self.viewmats):
            raise InputError(
                f"A scene needs as many rows of upper_face as cameras: {len(self.viewmats)} "
                f"expected, {len(self.upper_face)} found."
            )
        expected = (self.height, self.width, 3)
        if self.background.shape != expected or self.background.dtype != np.uint8:
            raise InputError(
                f"The background must be uint8 {list(expected)}, found "
                f"{self.background.dtype} {list(self.background.shape)}."
            )

    @classmethod
    def from_capture(
        cls, folder: Path, *, background: Path | None = None, upper_face: Path | None = None
    ) -> Self:
        """The scene of a capture's folder: validation cameras where there are some, as upstream
        renders them, else those of the training; the first frame's torso over the background.

        Args:
            folder: of the capture.
            background: a picture instead of the folder's own.
            upper_face: an ``au.csv`` instead of the folder's own.

        Raises:
            InputError: a file is missing, damaged or does not fit the others; names it.
        """
        if not folder.is_dir():
            raise InputError(f"Expected the folder of a capture at {folder}, found none.")
        candidates = [folder / f"transforms_{split}.json" for split in ("val", "train")]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise InputError(
                f"{folder} is not a capture: expected transforms_val.json or "
                "transforms_train.json in it, found neither."
            )
        return cls.of_parts(found, folder, background=background, upper_face=upper_face)

    @classmethod
    def of_parts(
        cls,
        transforms: Path,
        folder: Path,
        *,
        background: Path | None = None,
        upper_face: Path | None = None,
    ) -> Self:
        """As :meth:`from_transforms`; what is not given is looked for in a capture's folder."""
        torso_folder = folder / "torso_imgs"
        return cls.from_transforms(
            transforms,
            background=background or _either(folder / "bc.jpg", folder / "bc.png"),
            torso_folder=torso_folder if torso_folder.is_dir() else None,
            upper_face=upper_face or _either(folder / "au.csv"),
        )

    @classmethod
    def from_transforms(
        cls,
        path: Path,
        *,
        background: Path | None = None,
        torso_folder: Path | None = None,
        upper_face: Path | None = None,
    ) -> Self:
        """The scene of a ``transforms_*.json``.

        Camera-to-world matrices are OpenGL's (+y up, looking along -z): the columns 1 and 2 are
        negated and the matrix inverted. The focal length is ``focal_len``; ``cx`` and ``cy`` are
        ignored as upstream ignores them, the principal point is the picture's centre.

        Args:
            path: the transforms file.
            background: picture of the frame's size. Without one the background is black, and the
                size twice (``cx``, ``cy``), where upstream's preprocessing puts the centre.
            torso_folder: holds ``<img_id>.png``; the first frame's torso is put over the
                background. A bundle has one still plate where upstream has one per frame.
            upper_face: OpenFace's ``au.csv``, whose row ``img_id`` belongs to a frame; without it
                the face is at rest, all zero.

        Raises:
            InputError: a file is missing, damaged or does not fit the others; names it.
        """
        document = _read_json(path)
        try:
            frames = document["frames"]
            focal = float(document["focal_len"])
            ids = [int(frame.get("img_id", number)) for number, frame in enumerate(frames)]
            camera_to_world = np.array([frame["transform_matrix"] for frame in frames], np.float64)
            viewmats = check_viewmats(opengl_to_viewmats(camera_to_world))
        except (KeyError, TypeError, ValueError, AttributeError, np.linalg.LinAlgError) as error:
            raise InputError(
                f"{path} holds no cameras as TalkingGaussian writes them: expected focal_len and "
                f"frames[i].transform_matrix 4×4, found {_reason(error)}."
            ) from error
        if not np.isfinite(focal) or focal <= 0:
            raise InputError(f"{path}: focal_len must be a length in pixels, found {focal}.")
        notes: list[str] = []
        if background is None:
            plate = _black(path, document)
            notes.append("no background given: it is black")
        else:
            plate = read_image(background)
        if torso_folder is not None:
            plate = _with_torso(plate, torso_folder / f"{ids[0]}.png")
            if len(ids) > 1:
                notes.append(f"the torso stands still as in frame {ids[0]} of {torso_folder}")
        if upper_face is None:
            rows = np.zeros((len(ids), UPPER_FACE_SIZE), np.float32)
            notes.append("no action units given (au.csv): brows are at rest and eyes never blink")
        else:
            rows = _rows(read_upper_face(upper_face, _OPENFACE).rows, ids, upper_face)
        height, width = plate.shape[:2]
        return cls(
            viewmats=viewmats.astype(np.float32),
            K=intrinsics(focal, width, height),
            width=width,
            height=height,
            background=plate,
            upper_face=rows,
            notes=tuple(notes),
        )

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Self:
        """The scene that a bundle was exported with.

        Raises:
            BundleError: its tracks or background are missing.
        """
        tensors = TensorReader(bundle)
        video = bundle.manifest.video
        size = (video.height, video.width, 3)
        viewmats = tensors.get("tracks.safetensors", "viewmats", (-1, 4, 4))
        name = "eyes" if bundle.manifest.family == "sdtalk" else "upper_face"
        background = np.zeros(size, np.uint8)
        if "background.safetensors" in bundle.manifest.files:
            background = tensors.get("background.safetensors", "image", size, np.uint8)
        return cls(
            viewmats=viewmats,
            K=np.array(bundle.manifest.camera.K),
            width=video.width,
            height=video.height,
            background=background,
            upper_face=tensors.get("tracks.safetensors", name, (-1, UPPER_FACE_SIZE)),
        )

    @classmethod
    def framing(cls, means: ArrayLike, size: int = _SIZE) -> Self:
        """A still camera straight in front of the face, for lack of a capture.

        Head space looks along +z with +y up (docs/architecture.md), which is also what the face
        tracker of TalkingGaussian gives. The camera looks at the middle of the Gaussians, from as
        far away as lets them fill 0.8 of the picture; the hundredth part of them that lies
        furthest out on either side is not counted. Focal length 1200 pixels per 512.

        Args:
            means: [N,3] positions of the Gaussians.
            size: width and height of a frame, pixels.

        Raises:
            InputError: no Gaussians, or not finite.
        """
        points = np.asarray(means, np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise InputError(f"Gaussians to frame must be [N,3], found {list(points.shape)}.")
        if not np.isfinite(points).all():
            raise InputError("Gaussians to frame must be finite, found NaN or infinity.")
        low, high = np.percentile(points, [1, 99], axis=0)
        centre = (low + high) / 2
        focal = _FOCAL_PER_WIDTH * size
        extent = max(float((high - low)[:2].max()), 1e-3)
        distance = float(focal * extent / (_FILL * size) + (high[2] - centre[2]))
        viewmat = np.diag([1.0, -1.0, -1.0, 1.0])
        viewmat[:3, 3] = [-centre[0], centre[1], centre[2] + distance]
        return cls(
            viewmats=viewmat[None].astype(np.float32),
            K=intrinsics(focal, size, size),
            width=size,
            height=size,
            background=np.zeros((size, size, 3), np.uint8),
            upper_face=np.zeros((1, UPPER_FACE_SIZE), np.float32),
            notes=(
                f"no capture given: a still camera straight in front, {distance:.3g} from the "
                f"Gaussians' middle, focal length {focal:.0f} pixels, frames of {size}×{size}",
                "no background given: it is black",
                "no action units given (au.csv): brows are at rest and eyes never blink",
            ),
        )

    def with_background(self, path: Path) -> Self:
        """The same scene before another picture of the frame's size.

        Raises:
            InputError: it cannot be read or has another size.
        """
        background = read_image(path)
        if background.shape != self.background.shape:
            raise InputError(
                f"{path} must be as large as a frame, {self.width}×{self.height}, found "
                f"{background.shape[1]}×{background.shape[0]}."
            )
        notes = tuple(note for note in self.notes if not note.startswith("no background"))
        return replace(self, background=background, notes=notes)


def intrinsics(focal: float, width: int, height: int) -> NDArray[np.float64]:
    """K [3,3] with the principal point in the picture's centre, pixel centres at +0.5."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def opengl_to_viewmats(camera_to_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """World → camera, OpenCV, from camera → world, OpenGL. [T,4,4]."""
    if camera_to_world.ndim != 3 or camera_to_world.shape[1:] != (4, 4):
        raise InputError(f"transform matrices of shape {list(camera_to_world.shape)}")
    return np.asarray(np.linalg.inv(camera_to_world * [1.0, -1.0, -1.0, 1.0]), np.float64)


def read_image(path: Path) -> ByteImage:
    """RGB picture, uint8 [H,W,3].

    Raises:
        InputError: missing, damaged or larger than 4096 pixels a side.
    """
    return np.asarray(open_image(path).convert("RGB"))


def _rows(table: FloatArray, ids: list[int], path: Path) -> FloatArray:
    first, last = min(ids), max(ids)
    if first < 0 or last >= len(table):
        raise InputError(
            f"{path} does not belong to these cameras: they ask for the frames {first} to {last}, "
            f"it has {len(table)} rows."
        )
    return np.ascontiguousarray(table[ids])


def _either(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _black(path: Path, document: dict[str, Any]) -> ByteImage:
    """As large as the picture whose centre is (``cx``, ``cy``)."""
    width, height = (round(2 * document.get(name, _SIZE / 2)) for name in ("cx", "cy"))
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise InputError(
            f"{path}: cx and cy must be the centre of a picture of at most {_MAX_SIDE} pixels a "
            f"side, found {document.get('cx')} and {document.get('cy')}."
        )
    return np.zeros((height, width, 3), np.uint8)


def _with_torso(plate: ByteImage, path: Path) -> ByteImage:
    """A torso, RGBA, over a plate; truncated to bytes as upstream stores it."""
    torso = np.asarray(open_image(path).convert("RGBA"), np.float32)
    if torso.shape[:2] != plate.shape[:2]:
        raise InputError(
            f"{path} must be as large as the background, {plate.shape[1]}×{plate.shape[0]}, found "
            f"{torso.shape[1]}×{torso.shape[0]}."
        )
    alpha = torso[..., 3:] / 255
    return (torso[..., :3] * alpha + plate * (1 - alpha)).astype(np.uint8)


def open_image(path: Path) -> Image.Image:
    """A picture, decoded.

    Raises:
        InputError: missing, damaged or larger than 4096 pixels a side.
    """
    _check_file(path, "a picture")
    try:
        image = Image.open(path)
        if max(image.size) > _MAX_SIDE:
            raise InputError(
                f"{path} is too large: at most {_MAX_SIDE} pixels a side, found "
                f"{image.size[0]}×{image.size[1]}."
            )
        image.load()
    except InputError:
        raise
    except Exception as error:  # a damaged picture can fail anywhere inside its decoder
        raise InputError(f"{path} is not a picture that can be read: {_reason(error)}.") from error
    return image


def _read_json(path: Path) -> dict[str, Any]:
    _check_file(path, "cameras (transforms_*.json)")
    try:
        document = schema.parse(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {_reason(error)}.") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} must hold a JSON object, found {type(document).__name__}.")
    return document


def _check_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise InputError(f"Expected {what} at {path}, found no such file.")
    if (size := path.stat().st_size) > _MAX_TEXT_BYTES:
        raise InputError(f"{path} is too large: at most {_MAX_TEXT_BYTES} bytes, found {size}.")


def _reason(error: Exception) -> str:
    kind = "no key" if isinstance(error, KeyError) else ""
    return f"{kind} {error}".strip().rstrip(".")
