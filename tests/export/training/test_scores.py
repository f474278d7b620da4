import numpy as np

from talksplat_export.training.scores import LipReader, correlation, psnr, ssim


def mouths(openings, generator):
    """Grey pictures with a dark mouth of the given height at a wandering place."""
    frames = np.full((len(openings), 64, 64, 3), 180.0)
    centres = 32 + generator.uniform(-3, 3, (len(openings), 2))
    y, x = np.mgrid[:64, :64] + 0.5
    for frame, opening, (cx, cy) in zip(frames, openings, centres, strict=True):
        inside = ((x - cx) / 10) ** 2 + ((y - cy) / (opening + 0.5)) ** 2 < 1
        frame[inside] = 40
    frames += generator.normal(0, 3, frames.shape)
    return frames.clip(0, 255).astype(np.uint8), centres


def test_psnr_of_a_known_difference():
    a = np.full((2, 8, 8, 3), 100, np.uint8)
    b = a + np.uint8(5)
    np.testing.assert_allclose(psnr(a, b), 20 * np.log10(255 / 5), atol=1e-5)


def test_ssim_of_equal_frames_is_one():
    frames = np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(ssim(frames, frames), 1)


def test_the_lip_reader_reads_mouths_it_has_not_seen():
    generator = np.random.default_rng(1)
    openings = generator.uniform(0, 8, 160)
    frames, centres = mouths(openings, generator)
    reader = LipReader.fit(frames[:120], centres[:120], openings[:120], span=28)
    assert correlation(reader.read(frames[120:], centres[120:]), openings[120:]) > 0.97
