"""What an avatar hears: the audio window of every frame, from pushed audio or from given features.

Shared by the families. All windows lie at absolute frame numbers, so that how audio was cut into
pushes cannot change them; beyond the ends of a clip they are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from talksplat.backends import Backend, Engine
from talksplat.bundle import Bundle
from talksplat.errors import InputError
from talksplat.families.contract import audio_encoder_tensors, load_graphs
from talksplat.manifest import AudioBlocks, AudioContract, Manifest, WindowContract
from talksplat.ring import Ring
from talksplat.speech_features import FeatureWindows
from talksplat.timings import Timings

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """One run of the audio encoder.

    Attributes:
        features: [1,L,D] as the graph gives them, margins included.
        frames: how many of the block's frames lie in the clip.
    """

    features: FloatArray
    frames: int


class AudioFeatures(Protocol):
    """The features of one utterance after another; belongs to one stream."""

    look_ahead_samples: int
    """Most audio after the end of a frame's own samples that any frame waits for."""

    def reset(self, pcm: Ring) -> None:
        """Begin an utterance whose samples will be appended to ``pcm``."""
        ...

    def samples_needed(self, frame: int) -> int:
        """Samples of the utterance that must be there before ``frame`` can be heard."""
        ...

    def listen(self, frame: int, frames: int | None, timings: Timings) -> list[Block]:
        """Make the window of ``frame`` available; returns the blocks encoded for it just now.

        Args:
            frame: number of the frame in the utterance; must not decrease.
            frames: how many the utterance has, or None while it goes on.
            timings: where to add the time of the encoder.
        """
        ...

    def window(self, frame: int) -> FloatArray:
        """What ``frame`` hears, [frames_before + 1 + frames_after, tokens, D]."""
        ...

    def forget(self, before: int) -> None:
        """Drop what only windows of frames below ``before`` reach."""
        ...

    def oldest_sample(self) -> int:
        """Samples of ``pcm`` before this one are not read any more."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def load_audio_encoder(bundle: Bundle, backend: Backend) -> Engine | None:
    """The bundle's ``audio_encoder``, if it has one.

    Raises:
        BundleError: the graph is not that of the contract.
        BackendError: the backend refuses it.
    """
    if bundle.manifest.audio.blocks is None:
        return None
    tensors = audio_encoder_tensors(bundle.manifest)
    return load_graphs(bundle, backend, {"audio_encoder": tensors})["audio_encoder"]


def audio_features(
    manifest: Manifest, engine: Engine | None, features: FloatArray | None
) -> AudioFeatures:
    """The features of a session: those given, or what the bundle's encoder hears.

    Args:
        manifest: of the bundle.
        engine: its ``audio_encoder``, if it has one.
        features: precomputed, [T,W,D] or [L,D].

    Raises:
        InputError: the features do not fit, or there are none and the bundle has no encoder.
    """
    audio, window = manifest.audio, manifest.window
    if features is not None:
        return GivenFeatures(
            FeatureWindows(features, window, audio.feature_size, audio.frame_tokens), audio
        )
    if engine is None or audio.blocks is None:
        raise InputError(
            f"{manifest.name} holds no audio encoder: expected features, found none. Compute the "
            f"speech's {audio.features} features, [T,{window.tokens},{audio.feature_size}] at "
            f"{audio.fps} frames a second, and pass them as features (--features FILE.npy)."
        )
    return EncodedFeatures(engine, audio, audio.blocks, window)


class EncodedFeatures:
    """Features that ``audio_encoder`` makes of the pushed audio, block by block.

    Args:
        engine: the graph.
        audio: rates.
        blocks: how it runs on a stream.
        window: which tokens a frame hears.
        frames_after: frames after a frame whose blocks must be encoded for it, windows aside.
    """

    def __init__(
        self,
        engine: Engine,
        audio: AudioContract,
        blocks: AudioBlocks,
        window: WindowContract,
        frames_after: int = 0,
    ) -> None:
        self._runner = engine.runner()
        self._audio = audio
        self._blocks = blocks
        self._window = window
        self._frames_after = frames_after
        self.look_ahead_samples = max(
            self.samples_needed(frame) - (frame + 1) * audio.frame_samples
            for frame in range(blocks.block_frames)
        )
        self.reset(Ring(()))

    def reset(self, pcm: Ring) -> None:
        """See :meth:`AudioFeatures.reset`."""
        self._pcm = pcm
        self._next_block = 0
        self._tokens = Ring((self._audio.feature_size,))

    def samples_needed(self, frame: int) -> int:
        """See :meth:`AudioFeatures.samples_needed`."""
        frames = (self._last_block(frame) + 1) * self._blocks.block_frames
        return frames * self._audio.frame_samples + self._blocks.right_samples

    def listen(self, frame: int, frames: int | None, timings: Timings) -> list[Block]:
        """See :meth:`AudioFeatures.listen`."""
        needed = self._last_block(frame)
        if frames is not None:
            needed = min(needed, (frames - 1) // self._blocks.block_frames)
        encoded = []
        while self._next_block <= needed:
            encoded.append(self._encode(self._next_block, frames, timings))
            self._next_block += 1
        return encoded

    def window(self, frame: int) -> FloatArray:
        """See :meth:`AudioFeatures.window`."""
        window, step = self._window, self._audio.frame_tokens
        first, last = frame - window.frames_before, frame + window.frames_after
        start = first * step - window.tokens_before
        stop = last * step - window.tokens_before + window.tokens
        tokens = self._tokens.zero_padded(start, stop)
        heard = sliding_window_view(tokens, window.tokens, axis=0)[::step].swapaxes(1, 2).copy()
        positions = np.arange(first, last + 1)
        heard[(positions < 0) | (positions * step >= self._tokens.end)] = 0
        return heard

    def forget(self, before: int) -> None:
        """See :meth:`AudioFeatures.forget`."""
        first = before - self._window.frames_before
        self._tokens.forget(first * self._audio.frame_tokens - self._window.tokens_before)

    def oldest_sample(self) -> int:
        """See :meth:`AudioFeatures.oldest_sample`."""
        first_frame = self._next_block * self._blocks.block_frames
        return first_frame * self._audio.frame_samples - self._blocks.left_samples

    def close(self) -> None:
        """See :meth:`AudioFeatures.close`."""
        self._runner.close()

    def _last_block(self, frame: int) -> int:
        """The block that completes what ``frame`` needs."""
        window = self._window
        last_token = (frame + window.frames_after) * self._audio.frame_tokens
        last_token += window.tokens - window.tokens_before - 1
        last_frame = max(last_token // self._audio.frame_tokens, frame + self._frames_after)
        return last_frame // self._blocks.block_frames

    def _encode(self, block: int, frames: int | None, timings: Timings) -> Block:
        blocks, samples = self._blocks, self._audio.frame_samples
        first = block * blocks.block_frames
        last = first + blocks.block_frames
        pcm = self._pcm.zero_padded(
            first * samples - blocks.left_samples, last * samples + blocks.right_samples
        )
        with timings.stage("audio_encoder"):
            features = self._runner.run({"pcm": pcm[None]})["features"]
        # A clip's last block is filled up with silence: what lies beyond the clip is dropped.
        count = blocks.block_frames if frames is None else min(last, frames) - first
        own = slice(blocks.left_tokens, blocks.left_tokens + count * self._audio.frame_tokens)
        self._tokens.append(features[0, own])
        return Block(features, count)


class GivenFeatures:
    """Precomputed features; pushed audio only counts time.

    Frame i of every utterance hears window i; frames beyond the features hear zeros.
    """

    look_ahead_samples = 0

    def __init__(self, windows: FeatureWindows, audio: AudioContract) -> None:
        self._windows = windows
        self._audio = audio
        self._pcm = Ring(())

    def reset(self, pcm: Ring) -> None:
        """See :meth:`AudioFeatures.reset`."""
        self._pcm = pcm

    def samples_needed(self, frame: int) -> int:
        """See :meth:`AudioFeatures.samples_needed`."""
        return (frame + 1) * self._audio.frame_samples

    def listen(self, frame: int, frames: int | None, timings: Timings) -> list[Block]:
        """See :meth:`AudioFeatures.listen`."""
        return []

    def window(self, frame: int) -> FloatArray:
        """See :meth:`AudioFeatures.window`."""
        return self._windows.at(frame)

    def forget(self, before: int) -> None:
        """See :meth:`AudioFeatures.forget`; what was given is kept."""

    def oldest_sample(self) -> int:
        """See :meth:`AudioFeatures.oldest_sample`."""
        return self._pcm.end

    def close(self) -> None:
        """See :meth:`AudioFeatures.close`."""
