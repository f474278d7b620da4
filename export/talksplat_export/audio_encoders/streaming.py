"""From an encoder of whole clips to one of blocks: context before, look-ahead after, the price.

``python -m talksplat_export.audio_encoders.streaming hubert-large/ -o out/streaming`` measures
forms of an encoder on a sound and writes ``streaming.json`` and ``streaming.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from talksplat.atomic import write_bytes
from talksplat.audio import read_audio
from talksplat_export.audio_encoders.base import (
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    AudioEncoder,
    ClipEncoder,
    StreamingForm,
)
from talksplat_export.audio_encoders.load import load_encoder
from talksplat_export.audio_encoders.untrained import ARCHITECTURES, untrained_speech_model
from talksplat_export.audio_encoders.weights import constant_weights
from talksplat_export.probe_speech import probe_speech


@dataclass(frozen=True)
class StreamingMeasure:
    """A streaming form against the whole clip, on one sound.

    Attributes:
        form: what was measured.
        latency_ms: from the last sample of a block's first frame to the last sample that the block
            waits for. The avatar's own window comes on top.
        work: samples encoded per sample of sound.
        difference: largest absolute difference of any token from the whole clip's, relative to the
            standard deviation of the whole clip's features.
        rms_difference: root mean square of the differences, relative likewise.
    """

    form: StreamingForm
    latency_ms: float
    work: float
    difference: float
    rms_difference: float


def stream(encoder: ClipEncoder, pcm: Tensor, form: StreamingForm | None = None) -> AudioEncoder:
    """An encoder as a bundle carries it; its difference from the whole clip is that on ``pcm`` [S].

    Raises:
        InputError: the encoder cannot take this form.
    """
    form = form or encoder.usual_form
    blocks, module = encoder.window(form)
    difference = measure(encoder, form, pcm).difference
    module, constants = constant_weights(module.eval())
    return AudioEncoder(
        module=module,
        features=encoder.features,
        feature_rate=encoder.feature_rate,
        feature_size=encoder.feature_size,
        blocks=replace(blocks, difference=difference),
        constants=constants,
        origin=encoder.origin,
    )


def measure(encoder: ClipEncoder, form: StreamingForm, pcm: Tensor) -> StreamingMeasure:
    """Encode a clip [S] block by block as a session does, and compare with the whole clip.

    Raises:
        InputError: the encoder cannot take this form.
    """
    with torch.inference_mode():
        whole = encoder.clip(pcm)
        blocks = streamed(encoder, form, pcm)
    tokens = min(len(whole), -(-pcm.shape[0] // SAMPLES_PER_FRAME) * encoder.frame_tokens)
    difference = (blocks[:tokens] - whole[:tokens]).abs()
    spread = whole[:tokens].std(correction=0).clamp_min(torch.finfo(torch.float32).tiny)
    contract, _ = encoder.window(form)
    own = SAMPLES_PER_FRAME * form.block_frames
    heard = contract.left_samples + own + contract.right_samples
    waited = own - SAMPLES_PER_FRAME + contract.right_samples
    return StreamingMeasure(
        form=form,
        latency_ms=1000 * waited / SAMPLE_RATE,
        work=heard / own,
        difference=float(difference.max() / spread),
        rms_difference=float(difference.square().mean().sqrt() / spread),
    )


def streamed(encoder: ClipEncoder, form: StreamingForm, pcm: Tensor) -> Tensor:
    """Features [L,D] of a clip [S], L those of whole blocks, with zeros beyond its ends."""
    contract, module = encoder.window(form)
    own = SAMPLES_PER_FRAME * form.block_frames
    count = -(-pcm.shape[0] // own)
    after = count * own - pcm.shape[0] + contract.right_samples
    padded = nn.functional.pad(pcm, (contract.left_samples, after))
    heard = contract.left_samples + own + contract.right_samples
    return torch.cat([module(padded[None, k * own : k * own + heard])[0] for k in range(count)])


def markdown(encoder: ClipEncoder, measures: Sequence[StreamingMeasure]) -> str:
    """The measures as a table."""
    lines = [
        f"{encoder.origin}; differences relative to the features' standard deviation.",
        "",
        "| block, frames | context, s | look-ahead, ms | latency, ms | work | largest | rms |",
        "|---|---|---|---|---|---|---|",
    ]
    for m in measures:
        form = m.form
        lines.append(
            f"| {form.block_frames} | {form.context_frames / 25:g} | "
            f"{form.look_ahead_frames * 40} | {m.latency_ms:.0f} | {m.work:.1f} | "
            f"{m.difference:.2g} | {m.rms_difference:.2g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("encoder", nargs="?", help="folder, hub id or AVE checkpoint")
    source.add_argument("--untrained", choices=ARCHITECTURES, help="an architecture at full size")
    parser.add_argument("--speech", type=Path, help="sound file; default: made-up vowels")
    parser.add_argument("--layer", type=int, help="hidden state; default: the last")
    parser.add_argument(
        "--forms",
        nargs="+",
        default=[],
        metavar="B,C,A",
        type=_form,
        help="frames per block, of context, of look-ahead; default: the usual form",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out/streaming"))
    args = parser.parse_args()
    encoder = (
        load_encoder(args.encoder, layer=args.layer)
        if args.untrained is None
        else untrained_speech_model(args.untrained)
    )
    pcm = torch.from_numpy(probe_speech() if args.speech is None else read_audio(args.speech))
    measures = [measure(encoder, form, pcm) for form in args.forms or [encoder.usual_form]]
    document = {"encoder": encoder.origin, "forms": [asdict(measured) for measured in measures]}
    text = markdown(encoder, measures)
    write_bytes(args.output.with_suffix(".json"), (json.dumps(document, indent=2) + "\n").encode())
    write_bytes(args.output.with_suffix(".md"), text.encode())
    print(text, end="")


def _form(text: str) -> StreamingForm:
    block, context, look_ahead = map(int, text.split(","))
    return StreamingForm(block, context, look_ahead)


if __name__ == "__main__":
    main()
