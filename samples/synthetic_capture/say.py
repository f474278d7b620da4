"""Says a sentence into a wav file, 16 kHz mono.

python samples/synthetic_capture/say.py "Good morning." -o morning.wav --voice en-us+f2
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synthetic_capture.corpus import AVATAR_VOICE
from synthetic_capture.speech import SAMPLE_RATE, Voice, synthesize
from talksplat.errors import TalksplatError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--voice", default=AVATAR_VOICE.name, help="eSpeak NG voice")
    parser.add_argument("--rate", type=int, default=AVATAR_VOICE.rate, help="words per minute")
    arguments = parser.parse_args()
    speech = synthesize(arguments.text, Voice(arguments.voice, rate=arguments.rate))
    soundfile.write(arguments.output, speech.pcm, SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    try:
        main()
    except TalksplatError as error:
        sys.exit(f"error: {error}")
