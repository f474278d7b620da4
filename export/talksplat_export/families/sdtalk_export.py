"""SDTalk, as export sees it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from talksplat.errors import CheckpointError, InputError
from talksplat.manifest import (
    AudioContract,
    Baked,
    Camera,
    Licence,
    Manifest,
    Provenance,
    RasterizerContract,
    Row,
    SdtalkContract,
    Tolerances,
    VideoContract,
    WindowContract,
)
from talksplat_export.audio_encoders.base import SAMPLES_PER_FRAME, AudioEncoder
from talksplat_export.checkpoints.sdtalk import SdtalkCheckpoint
from talksplat_export.families.base import Array, FamilyExport, FloatArray, Graph, Reference
from talksplat_export.families.flop_counter import FlopCounter
from talksplat_export.families.sdtalk import (
    EYES_WIDTH,
    WINDOW_TOKENS,
    FeatureGaussians,
    Sdtalk,
)
from talksplat_export.families.sdtalk_graphs import (
    REGIONS,
    MotionGraph,
    NoisePolicy,
    RefinerGraph,
    bake,
    noise_inputs,
)
from talksplat_export.families.sdtalk_identity import Person, intrinsics
from talksplat_export.families.sdtalk_reference import SdtalkReference, audio_windows
from talksplat_export.families.talkinggaussian import AudioInput
from talksplat_export.families.talkinggaussian_reference import encode_in_blocks, made_up_features
from talksplat_export.scene import Scene

_OUTPUTS = ("means", "scales", "quats", "opacities")


@dataclass(frozen=True)
class SdtalkOptions:
    """What the tensors of a checkpoint do not say.

    Attributes:
        noise: what the refiner adds at its style convolutions: ``"stored"``, the checkpoint's own
            maps, always the same; ``"zero"``, none; ``"input"``, maps that the graph takes. The
            authors' code draws them anew in every frame, which is ``"input"`` with new maps.
        feature_rate: tokens of speech features per second.
        tokens_before: how many of a frame's 16 tokens lie before its own first one. The authors
            have not published how their features are cut; this is what their kin do.
        name: the avatar's name.
        licence: terms of the avatar.
    """

    noise: NoisePolicy = "stored"
    feature_rate: int = 50
    tokens_before: int = WINDOW_TOKENS // 2
    name: str = "avatar"
    licence: Licence = field(
        default_factory=lambda: Licence(
            "unknown", "The terms of the training code, of its data and of the person shown apply."
        )
    )


class SdtalkExport(FamilyExport):
    """A checkpoint of SDTalk with one person's picture, which is encoded once, here.

    Args:
        checkpoint: what was trained.
        person: picture, camera and mesh.
        scene: cameras, and as ``upper_face`` the eyes: lid openings and widths in pixels. By
            default the picture's own camera, standing still, and open eyes.
        options: what the tensors do not say.
        audio_encoder: makes the speech features inside the bundle; without one a session needs
            ``features``.

    Raises:
        InputError: the person or the scene does not fit the checkpoint.
        CheckpointError: the encoder's features are not those of the checkpoint.
    """

    family = "sdtalk"
    tolerances: ClassVar[dict[str, float]] = {"motion": 1e-5, "refiner": 1e-4}
    encoder_tolerance: ClassVar[float] = 1e-3
    frames_psnr_db = 60.0

    def __init__(
        self,
        checkpoint: SdtalkCheckpoint,
        person: Person,
        scene: Scene | None = None,
        options: SdtalkOptions | None = None,
        audio_encoder: AudioEncoder | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.options = options or SdtalkOptions()
        self.scene = scene or person.scene()
        self.audio_encoder = audio_encoder
        _check_person(self.model, person)
        _check_scene(self.model, self.scene)
        if audio_encoder is not None:
            self._check_encoder(audio_encoder)
        self.flame, self.dense = resting_gaussians(self.model, person)
        with torch.no_grad():
            self.baked = bake(self.model, self.flame, self.dense)

    def graphs(self) -> list[Graph]:
        """See :meth:`FamilyExport.graphs`."""
        upsampler, noise = self.model.upsampler, self.options.noise
        size = upsampler.config.image_size
        features = torch.zeros(1, upsampler.config.in_channels, size, size)
        graphs = [] if self.audio_encoder is None else [self.audio_encoder.graph()]
        return [
            *graphs,
            Graph(
                "motion",
                MotionGraph(self.model).eval(),
                {**self._conditions(), **self.baked},
                _OUTPUTS,
                {
                    f"{region}_{name}": {0: f"{region}_gaussians"}
                    for region in REGIONS
                    for name in ("rest", "first", "attention")
                },
            ),
            Graph(
                "refiner",
                RefinerGraph(upsampler, noise).eval(),
                {"features": features, **(noise_inputs(upsampler) if noise == "input" else {})},
                ("image",),
            ),
        ]

    def tensors(self) -> dict[str, dict[str, Array]]:
        """See :meth:`FamilyExport.tensors`."""
        features = FeatureGaussians.concatenated([self.flame, self.dense]).features
        encoder = {} if self.audio_encoder is None else self.audio_encoder.tensors()
        return encoder | {
            "baked_motion.safetensors": {
                name: tensor.numpy() for name, tensor in self.baked.items()
            },
            "gaussians.safetensors": {"features": features.contiguous().numpy()},
            "tracks.safetensors": {
                "viewmats": self.scene.viewmats,
                "eyes": self.scene.upper_face,
            },
        }

    def manifest(self, provenance: Provenance, created_with: dict[str, str]) -> Manifest:
        """See :meth:`FamilyExport.manifest`."""
        encoder, size = self.audio_encoder, self.model.upsampler.config.image_size
        tolerances = dict(self.tolerances)
        if encoder is not None:
            tolerances["audio_encoder"] = self.encoder_tolerance
            created_with = {**created_with, "audio_encoder": encoder.origin}
        rows = [cast(Row, tuple(float(value) for value in row)) for row in self.scene.K]
        return Manifest(
            family="sdtalk",
            name=self.options.name,
            created_with=created_with,
            provenance=provenance,
            licence=self.options.licence,
            precision="float32",
            audio=self._audio(),
            video=VideoContract(width=size, height=size, fps=25),
            rasterizer=self.rasterizer(),
            camera=Camera(K=(rows[0], rows[1], rows[2])),
            sdtalk=SdtalkContract(window=self._window(), noise=self.options.noise),
            tolerances=Tolerances(tolerances, self.frames_psnr_db),
            baked=self.savings(),
        )

    def rasterizer(self) -> RasterizerContract:
        """Inria's, with more channels; it takes quaternions as they are."""
        return RasterizerContract(
            dialect="inria", rasterize_mode="classic", sh_degree=0, near_plane=0.2, eps2d=0.3
        )

    def reference(self, pcm: FloatArray) -> Reference:
        """See :meth:`FamilyExport.reference`; without an encoder on made-up features."""
        frames = -(-len(pcm) // SAMPLES_PER_FRAME)
        renderer = SdtalkReference(
            self.model, self.flame, self.dense, self.scene, self.rasterizer(), self.options.noise
        )
        if self.audio_encoder is None:
            window = self._window()
            heard = AudioInput(
                features=self.checkpoint.audio_features,
                feature_width=self.checkpoint.feature_size,
                feature_rate=self.options.feature_rate,
                tokens=window.tokens,
                tokens_before=window.tokens_before,
            )
            tokens = made_up_features(heard, frames)
            return replace(renderer.render(self._windows(tokens, frames)), features=tokens)
        tokens, probes = encode_in_blocks(self.audio_encoder, pcm)
        reference = renderer.render(self._windows(tokens, frames))
        return replace(reference, probes={**probes, **reference.probes})

    @torch.no_grad()
    def savings(self) -> Baked:
        """Operations from window and eyes to Gaussians, as published and as exported.

        Upstream also looks every position up in its grids again in every frame; both counts are
        without that.
        """
        window, eyes = self._conditions().values()
        networks = (self.model.motion_net_flame, self.model.motion_net_dense)
        fields = [
            (network, network.encode_positions(gaussians.means))
            for network, gaussians in zip(networks, (self.flame, self.dense), strict=True)
        ]
        with FlopCounter() as published:
            for network, positions in fields:
                network(positions, window, eyes)
        with FlopCounter() as exported:
            MotionGraph(self.model)(window, eyes, *self.baked.values())
        return Baked(
            bytes=sum(tensor.nbytes for tensor in self.baked.values()),
            flops_before=published.get_total_flops(),
            flops_after=exported.get_total_flops(),
        )

    def _conditions(self) -> dict[str, Tensor]:
        return {
            "audio_window": torch.zeros(1, WINDOW_TOKENS, self.checkpoint.feature_size),
            "eyes": torch.zeros(1, EYES_WIDTH),
        }

    def _window(self) -> WindowContract:
        return WindowContract(
            frames_before=0,
            frames_after=0,
            tokens=WINDOW_TOKENS,
            tokens_before=self.options.tokens_before,
        )

    def _windows(self, tokens: FloatArray, frames: int) -> FloatArray:
        return audio_windows(tokens, self._audio(), self._window(), frames)

    def _audio(self) -> AudioContract:
        encoder = self.audio_encoder
        return AudioContract(
            sample_rate=16000,
            fps=25,
            features=self.checkpoint.audio_features,
            feature_rate=self.options.feature_rate,
            feature_size=self.checkpoint.feature_size,
            blocks=None if encoder is None else encoder.blocks,
        )

    def _check_encoder(self, encoder: AudioEncoder) -> None:
        expected = (self.options.feature_rate, self.checkpoint.feature_size)
        found = (encoder.feature_rate, encoder.feature_size)
        if found != expected:
            raise CheckpointError(
                f"The checkpoint was trained with {self.checkpoint.audio_features}: expected an "
                f"audio encoder of {expected[0]} tokens per second and {expected[1]} numbers "
                f"each, found {encoder.features} with {found[0]} and {found[1]}. Give the encoder "
                "it was trained with, or none and feed features to the session."
            )


@torch.no_grad()
def resting_gaussians(model: Sdtalk, person: Person) -> tuple[FeatureGaussians, FeatureGaussians]:
    """A person's Gaussians before any motion: those of the masked vertices, and of both planes."""
    kind = model.head_base
    encoder = model.config.image_encoder
    size = encoder.transformer.image_size
    picture = torch.from_numpy(person.image).permute(2, 0, 1)[None].to(kind) / 255
    picture = F.interpolate(
        picture, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    vertices, dense = model.resting_gaussians(
        picture,
        torch.from_numpy(person.head_points).to(kind),
        torch.from_numpy(person.plane_points(person.plane_size or encoder.output_size)).to(kind),
        torch.from_numpy(person.direction)[None].to(kind),
    )
    return vertices[torch.from_numpy(person.mask)], dense


def _check_person(model: Sdtalk, person: Person) -> None:
    size, vertices = model.upsampler.config.image_size, model.config.vertices
    if len(person.image) != size:
        raise InputError(
            f"The checkpoint paints pictures of {size}×{size}: expected such an image of the "
            f"person, found {len(person.image)}×{len(person.image)}."
        )
    if len(person.head_points) != vertices:
        raise InputError(
            f"The checkpoint was trained on a mesh of {vertices} vertices: expected as many "
            f"head_points, found {len(person.head_points)}."
        )


def _check_scene(model: Sdtalk, scene: Scene) -> None:
    size = model.upsampler.config.image_size
    expected = torch.from_numpy(intrinsics(size))
    if (scene.width, scene.height) != (size, size):
        raise InputError(
            f"The checkpoint paints pictures of {size}×{size}: expected a scene of that size, "
            f"found {scene.width}×{scene.height}."
        )
    if not torch.allclose(torch.from_numpy(scene.K), expected, rtol=1e-3):
        raise InputError(
            f"The checkpoint knows one camera: expected a focal length of {expected[0, 0]:.0f} "
            f"pixels and the principal point in the middle, found K = {scene.K.tolist()}."
        )
