"""D3-Talker at run time: which graph runs when, and what is carried between frames.

Per block of frames: pcm → features → expressions. Per frame: expression → PNCC difference →
facial motion; windows of motion and features → Gaussians → mouth over the plate, face over that →
refiner. The windows are those of ``docs/architecture.md``, all at absolute frame numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from talksplat.backends import Backend, Engine
from talksplat.bundle import Bundle
from talksplat.errors import BundleError, InputError
from talksplat.families.d3talker_contract import GRAPHS, audio_blocks, check_graphs
from talksplat.images import to_uint8
from talksplat.manifest import D3TalkerContract, Manifest
from talksplat.pncc import PnccRenderer
from talksplat.rasterization import Workspace, allocate_images, rasterize
from talksplat.ring import Ring
from talksplat.tensor_reader import TensorReader
from talksplat.timings import Timings
from talksplat.tracks import UPPER_FACE_SIZE, Track, check_viewmats

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class D3Talker:
    """A loaded D3-Talker avatar. Immutable after construction; shared by its sessions.

    Args:
        bundle: an opened bundle of this family.
        backend: what runs the graphs.
        threads: CPU threads that the rasterizer may use.

    Raises:
        BundleError: graphs or tensors are not those of the contract.
        BackendError: the backend refuses a graph.
    """

    def __init__(self, bundle: Bundle, backend: Backend, threads: int) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self.threads = threads
        self.audio = manifest.audio
        self.contract = manifest.contract(D3TalkerContract)
        self.blocks = audio_blocks(manifest)
        self.frame_samples = self.audio.frame_samples
        self.frame_tokens = self.audio.frame_tokens
        tensors = TensorReader(bundle)
        self.face = Appearance(tensors, "face", manifest.rasterizer.sh_degree)
        self.mouth = Appearance(tensors, "mouth", manifest.rasterizer.sh_degree)
        counts = {"face": len(self.face.opacities), "mouth": len(self.mouth.opacities)}
        constants = {name: bundle.constants(name) for name in GRAPHS}
        check_graphs(manifest, counts, constants["motion"])
        self.engines: dict[str, Engine] = {
            name: backend.load(bundle.graph_file(name), manifest.graphs[name], constants[name])
            for name in GRAPHS
        }
        self.pncc = _pncc_renderer(tensors, manifest)
        file = "tracks.safetensors"
        self.viewmats = Track(check_viewmats(tensors.get(file, "viewmats", (-1, 4, 4))))
        self.upper_face = Track(tensors.get(file, "upper_face", (-1, UPPER_FACE_SIZE)))
        size = (manifest.video.height, manifest.video.width, 3)
        self.background: ByteImage = tensors.get("background.safetensors", "image", size, np.uint8)
        self.look_ahead_samples = max(
            self.samples_needed(frame) - (frame + 1) * self.frame_samples
            for frame in range(self.blocks.block_frames)
        )

    def last_block(self, frame: int) -> int:
        """The block whose features and expressions complete the windows of ``frame``."""
        window = self.contract.window
        last_token = (frame + window.frames_after) * self.frame_tokens
        last_token += window.tokens - window.tokens_before - 1
        last_frame = max(last_token // self.frame_tokens, frame + self.contract.motion_radius)
        return last_frame // self.blocks.block_frames

    def samples_needed(self, frame: int) -> int:
        """Samples of an utterance that must be there before ``frame`` can be rendered."""
        frames = (self.last_block(frame) + 1) * self.blocks.block_frames
        return frames * self.frame_samples + self.blocks.right_samples

    def stream(self, background: ByteImage | None) -> D3TalkerStream:
        """See :meth:`talksplat.families.base.Family.stream`.

        Raises:
            InputError: the background has another size than the avatar's video.
        """
        plate = self.background if background is None else background
        if plate.shape != self.background.shape or plate.dtype != np.uint8:
            raise InputError(
                f"The background must be uint8 {list(self.background.shape)}, found "
                f"{plate.dtype} {list(plate.shape)}."
            )
        return D3TalkerStream(self, plate)


class Appearance:
    """What of a region's Gaussians does not move: opacities [N], SH coefficients [N,K,3]."""

    def __init__(self, tensors: TensorReader, region: str, sh_degree: int) -> None:
        file = f"{region}.safetensors"
        self.opacities: FloatArray = np.ascontiguousarray(
            tensors.get(file, "opacities", (-1, 1))[:, 0]
        )
        count = len(self.opacities)
        self.shs: FloatArray = tensors.get(file, "shs", (count, -1, 3))
        if self.shs.shape[1] < (sh_degree + 1) ** 2:
            raise BundleError(
                f"{file} holds {self.shs.shape[1]} SH coefficients per Gaussian; degree "
                f"{sh_degree} needs {(sh_degree + 1) ** 2}."
            )


class D3TalkerStream:
    """See :class:`talksplat.families.base.Stream`."""

    def __init__(self, family: D3Talker, background: ByteImage) -> None:
        self._family = family
        self._runners = {name: engine.runner() for name, engine in family.engines.items()}
        self._takes_upper_face = any(
            tensor.name == "upper_face" for tensor in family.engines["motion"].spec.inputs
        )
        height, width = background.shape[:2]
        self._plate = allocate_images(1, height, width, 3)
        np.divide(background, np.float32(255), out=self._plate[0])
        self._behind_face = allocate_images(1, height, width, 3)
        self._coarse = allocate_images(1, height, width, 3)
        self._mouth_alpha = allocate_images(1, height, width, 1)
        self._face_alpha = allocate_images(1, height, width, 1)
        self._workspace = Workspace()
        self._K = np.array(family.manifest.camera.K, np.float32)[None]
        self.reset(Ring(()))
        self._warm_up()

    def reset(self, pcm: Ring) -> None:
        """See :meth:`talksplat.families.base.Stream.reset`."""
        contract = self._family.contract
        self._pcm = pcm
        self._next_block = 0
        self._features = Ring((self._family.audio.feature_size,))
        self._expressions = Ring((contract.expression_size,))
        self._motions = Ring((contract.motion_size,))

    def samples_needed(self, frame: int) -> int:
        """See :meth:`talksplat.families.base.Stream.samples_needed`."""
        return self._family.samples_needed(frame)

    def oldest_sample(self) -> int:
        """See :meth:`talksplat.families.base.Stream.oldest_sample`."""
        blocks = self._family.blocks
        first_frame = self._next_block * blocks.block_frames
        return first_frame * self._family.frame_samples - blocks.left_samples

    def render(
        self,
        frame: int,
        frames: int | None,
        viewmat: FloatArray,
        upper_face: FloatArray,
        timings: Timings,
    ) -> tuple[ByteImage, FloatArray]:
        """See :meth:`talksplat.families.base.Stream.render`."""
        self._encode_blocks(frame, frames, timings)
        self._encode_motions(frame, timings)
        with timings.stage("motion"):
            inputs = {
                "facial_motion": self._motion_window(frame),
                "audio_window": self._audio_window(frame),
            }
            if self._takes_upper_face:
                inputs["upper_face"] = upper_face[None]
            gaussians = self._runners["motion"].run(inputs)
        with timings.stage("rasterize"):
            self._rasterize(gaussians, viewmat)
        with timings.stage("refiner"):
            coarse = self._coarse.transpose(0, 3, 1, 2)
            image = self._runners["refiner"].run({"coarse": coarse})["image"]
        with timings.stage("output"):
            pixels = to_uint8(image[0])
            alpha = self._alpha()
        self._forget(frame)
        return pixels, alpha

    def close(self) -> None:
        """See :meth:`talksplat.families.base.Stream.close`."""
        for runner in self._runners.values():
            runner.close()

    def _warm_up(self) -> None:
        """Make one frame of silence, so that the first real one is not slower than the others."""
        family = self._family
        self._pcm.append(np.zeros(1, np.float32))
        self.render(0, 1, family.viewmats.at(0), family.upper_face.at(0), Timings())
        self.reset(Ring(()))

    def _encode_blocks(self, frame: int, frames: int | None, timings: Timings) -> None:
        """Run the audio graphs on every block that the windows of ``frame`` reach."""
        blocks = self._family.blocks
        needed = self._family.last_block(frame)
        if frames is not None:
            needed = min(needed, (frames - 1) // blocks.block_frames)
        while self._next_block <= needed:
            first = self._next_block * blocks.block_frames
            last = first + blocks.block_frames
            pcm = self._pcm.zero_padded(
                first * self._family.frame_samples - blocks.left_samples,
                last * self._family.frame_samples + blocks.right_samples,
            )
            with timings.stage("audio_encoder"):
                features = self._runners["audio_encoder"].run({"pcm": pcm[None]})["features"]
            with timings.stage("audio_to_motion"):
                expressions = self._runners["audio_to_motion"].run({"features": features})
            # A clip's last block is filled up with silence: what lies beyond the clip is dropped.
            count = blocks.block_frames if frames is None else min(last, frames) - first
            tokens = blocks.left_tokens + np.arange(count * self._family.frame_tokens)
            self._features.append(features[0, tokens])
            self._expressions.append(expressions["expression"][0, :count])
            self._next_block += 1

    def _encode_motions(self, frame: int, timings: Timings) -> None:
        """Facial motion of every frame up to the end of the motion window of ``frame``."""
        last = min(frame + self._family.contract.motion_radius, self._expressions.end - 1)
        for position in range(self._motions.end, last + 1):
            expression = self._expressions.zero_padded(position, position + 1)[0]
            with timings.stage("pncc"):
                difference = self._family.pncc.difference(expression)
            with timings.stage("motion_encoder"):
                motion = self._runners["motion_encoder"].run({"pncc_difference": difference[None]})
            self._motions.append(motion["facial_motion"])

    def _motion_window(self, frame: int) -> FloatArray:
        """[1, 2j+1, 32]: frames i-j … i+j, clamped to the ends of the clip."""
        radius = self._family.contract.motion_radius
        return self._motions.clamped(frame - radius, frame + radius + 1)[None]

    def _audio_window(self, frame: int) -> FloatArray:
        """[1, 8, D, 16]: frames i-4 … i+3, each the 16 tokens around it, zeros beyond the ends."""
        contract, step = self._family.contract.window, self._family.frame_tokens
        first, last = frame - contract.frames_before, frame + contract.frames_after
        start = first * step - contract.tokens_before
        stop = last * step - contract.tokens_before + contract.tokens
        tokens = self._features.zero_padded(start, stop)
        window = sliding_window_view(tokens, contract.tokens, axis=0)[::step].copy()
        positions = np.arange(first, last + 1)
        window[(positions < 0) | (positions * step >= self._features.end)] = 0
        return window[None]

    def _rasterize(self, gaussians: dict[str, NDArray[Any]], viewmat: FloatArray) -> None:
        """Mouth over the plate, face over that, into the coarse image and the two alphas."""
        family = self._family
        rules = family.manifest.rasterizer
        height, width = self._coarse.shape[1:3]
        layers = (
            ("mouth", family.mouth, self._plate, self._behind_face, self._mouth_alpha),
            ("face", family.face, self._behind_face, self._coarse, self._face_alpha),
        )
        for region, appearance, behind, out, alpha in layers:
            rasterize(
                gaussians[f"{region}_means"],
                gaussians[f"{region}_quats"],
                gaussians[f"{region}_scales"],
                appearance.opacities,
                appearance.shs,
                viewmat[None],
                self._K,
                width,
                height,
                near_plane=rules.near_plane,
                eps2d=rules.eps2d,
                sh_degree=rules.sh_degree,
                backgrounds=behind,
                rasterize_mode=rules.rasterize_mode,
                dialect=rules.dialect,
                out=(out, alpha),
                workspace=self._workspace,
                threads=family.threads,
            )

    def _alpha(self) -> FloatArray:
        """[H,W]: what of the plate is covered by mouth or face."""
        seen_through: FloatArray = (1 - self._mouth_alpha) * (1 - self._face_alpha)
        return 1 - seen_through[0, :, :, 0]

    def _forget(self, frame: int) -> None:
        """Drop what no window of a later frame reaches."""
        contract, step = self._family.contract, self._family.frame_tokens
        first = frame + 1 - contract.window.frames_before
        self._features.forget(first * step - contract.window.tokens_before)
        self._expressions.forget(self._motions.end)
        self._motions.forget(frame + 1 - contract.motion_radius)


def _pncc_renderer(tensors: TensorReader, manifest: Manifest) -> PnccRenderer:
    contract = manifest.contract(D3TalkerContract)
    file, count = "pncc.safetensors", contract.expression_size
    template = tensors.get(file, "template", (-1, 3))
    vertices = len(template)
    faces = tensors.get(file, "faces", (-1, 3), np.int32)
    try:
        return PnccRenderer(
            template,
            tensors.get(file, "basis", (count, vertices, 3)),
            faces,
            tensors.get(file, "colors", (vertices, 3)),
            contract.pncc,
        )
    except InputError as error:
        raise BundleError(f"The mesh in {file} cannot be drawn: {error}") from error
