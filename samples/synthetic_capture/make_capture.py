"""Records a procedural head speaking, in the folder layout of TalkingGaussian and InsTaG.

    python samples/synthetic_capture/make_capture.py --identity ada --seconds 12 \\
        --held-out-seconds 8 -o captures/ada

``transforms_train.json`` holds the frames of training sentences, ``transforms_val.json`` those of
sentences that nothing is trained on. Interrupted recordings go on where they stopped. The same
arguments give the same capture, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synthetic_capture.corpus import AVATAR_VOICE
from synthetic_capture.recording import Recording, Scene
from synthetic_capture.speech import Voice
from talksplat.errors import InputError, TalksplatError
from talksplat_export.heads.identities import NAMED

_recording: Recording | None = None


def _start_worker(scene: Scene, folder: Path) -> None:
    global _recording
    _recording = Recording(scene, folder)


def _record(frame: int) -> int:
    assert _recording is not None
    _recording.write_frame(frame)
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identity", choices=sorted(NAMED), default="ada")
    parser.add_argument("--seconds", type=float, default=12.0, help="of training sentences")
    parser.add_argument("--held-out-seconds", type=float, default=8.0, help="of held-out ones")
    parser.add_argument("--voice", default=AVATAR_VOICE.name, help="eSpeak NG voice")
    parser.add_argument("--rate", type=int, default=AVATAR_VOICE.rate, help="words per minute")
    parser.add_argument("--size", type=int, default=512, help="pixels, width and height")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw frames")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    scene = Scene(
        identity=arguments.identity,
        voice=Voice(arguments.voice, rate=arguments.rate),
        seconds=arguments.seconds,
        held_out_seconds=arguments.held_out_seconds,
        size=arguments.size,
        seed=arguments.seed,
    )
    _check_same(scene, arguments.output)
    recording = Recording(scene, arguments.output)
    recording.write_tracks()
    todo = recording.missing_frames()
    done = len(recording) - len(todo)
    with tqdm(total=len(recording), initial=done, desc="frames", unit="frame") as progress:
        if arguments.workers == 1:
            for frame in todo:
                recording.write_frame(frame)
                progress.update()
        else:
            context = multiprocessing.get_context("spawn")
            started = (scene, arguments.output)
            with context.Pool(arguments.workers, _start_worker, started) as pool:
                for _ in pool.imap_unordered(_record, todo):
                    progress.update()


def _check_same(scene: Scene, folder: Path) -> None:
    """A folder that was begun must have been begun with the same arguments."""
    path = folder / "scene.json"
    content = json.dumps(asdict(scene), indent=1) + "\n"
    if path.is_file() and path.read_text() != content:
        raise InputError(
            f"Expected {folder} to be empty or begun with the same arguments, found another"
            f" recording in {path}. Choose another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


if __name__ == "__main__":
    try:
        main()
    except TalksplatError as error:
        sys.exit(f"error: {error}")
