"""Speech with mouth curves but without pictures, to train the audio front end on.

    python samples/synthetic_capture/make_speech.py -o captures/speech

writes ``train/``, ``held_out_sentences/`` (the training voices say sentences of their own) and
``held_out_voice/`` (another voice says those); one folder per utterance, with the same
``aud.wav``, ``expression.npz`` and ``phonemes.json`` as a capture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synthetic_capture.corpus import (
    HELD_OUT_VOICE,
    TRAINING_VOICES,
    Line,
    lines,
    varied,
)
from synthetic_capture.performance import perform, write_tracks
from synthetic_capture.speech import synthesize
from talksplat.errors import TalksplatError


def utterances(sentences_per_voice: int, seed: int) -> Iterator[tuple[str, Line]]:
    """Folder name and line of every utterance of the corpus."""
    for number, voice in enumerate(TRAINING_VOICES):
        for held_out, part in ((False, "train"), (True, "held_out_sentences")):
            # The shares of training and held-out sentences stay those of the text.
            count = sentences_per_voice if not held_out else -(-sentences_per_voice // 8)
            for line in lines(voice, held_out=held_out, seed=seed + number)[:count]:
                own = varied(voice, seed + 1000 * number + line.index)
                yield f"{part}/{voice.name}/{line.index:03d}", Line(line.index, line.text, own)
    for line in lines(HELD_OUT_VOICE, held_out=True, seed=seed):
        yield f"held_out_voice/{HELD_OUT_VOICE.name}/{line.index:03d}", line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sentences-per-voice", type=int, default=140)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    todo = list(utterances(arguments.sentences_per_voice, arguments.seed))
    for name, line in tqdm(todo, desc="speech", unit="sentence"):
        folder = arguments.output / name
        if (folder / "au.csv").is_file():  # written last
            continue
        write_tracks(perform(synthesize(line.text, line.voice), line.index), folder)


if __name__ == "__main__":
    try:
        main()
    except TalksplatError as error:
        sys.exit(f"error: {error}")
