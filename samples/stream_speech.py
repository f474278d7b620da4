"""Stream a sound file into an avatar as a microphone would, and film what comes out.

    python samples/stream_speech.py out/ada.avatar samples/speech/hello.wav out/streamed.mp4

Audio arrives 20 ms at a time; frames are taken as soon as they are ready.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import talksplat
from talksplat.video import Mp4Writer

SAMPLE_RATE = 16000
CHUNK = SAMPLE_RATE // 50


def main(bundle: str, speech: str, video: str) -> None:
    avatar = talksplat.load(bundle)
    pcm = talksplat.read_audio(Path(speech))
    size = avatar.manifest.video
    with (
        avatar.session() as session,
        Mp4Writer(Path(video), size.width, size.height, Fraction(25), SAMPLE_RATE) as writer,
    ):
        print(f"a frame waits for at most {session.look_ahead_samples / 16:.0f} ms of audio")
        for start in range(0, len(pcm), CHUNK):
            session.push(pcm[start : start + CHUNK])
            for frame in session.frames():
                writer.write(frame.image, frame.audio)
        session.end()
        for frame in session.frames():
            writer.write(frame.image, frame.audio)


if __name__ == "__main__":
    main(*sys.argv[1:])
