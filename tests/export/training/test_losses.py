import numpy as np
import torch
from skimage.metrics import structural_similarity as reference_ssim

from talksplat_export.training.losses import similarity_contrast, structural_similarity


def test_ssim_is_that_of_scikit_image():
    generator = np.random.default_rng(3)
    image, target = generator.random((2, 48, 40, 3), dtype=np.float32)
    target = 0.6 * image + 0.4 * target
    ours = structural_similarity(
        torch.from_numpy(image).permute(2, 0, 1)[None],
        torch.from_numpy(target).permute(2, 0, 1)[None],
    )
    _, full = reference_ssim(
        image,
        target,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    # Ours averages over windows that lie inside the picture; five pixels at each border do not.
    assert abs(float(ours) - full[5:-5, 5:-5].mean()) < 1e-5


def test_contrast_is_low_when_only_the_own_field_agrees():
    generator = torch.Generator().manual_seed(0)
    general = torch.randn(200, 3, generator=generator)
    others = [torch.randn(200, 3, generator=generator) for _ in range(2)]
    agreeing = similarity_contrast(general, [2 * general, *others], own=0)
    confused = similarity_contrast(general, [2 * general, *others], own=1)
    assert float(agreeing) < 0.2 < 2 < float(confused)


def test_contrast_of_indistinguishable_fields_is_the_log_of_their_number():
    general = torch.ones(10, 3)
    loss = similarity_contrast(general, [general] * 5, own=3)
    assert abs(float(loss) - np.log(5)) < 1e-5


def test_gaussians_that_do_not_move_say_nothing():
    general = torch.zeros(10, 3)
    assert float(similarity_contrast(general, [torch.ones(10, 3)] * 2, own=0)) == 0
