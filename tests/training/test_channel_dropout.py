"""Optional channels left out of training samples."""

import torch

from veloxseg.training.channel_dropout import drop_channels


def images(batch=1, channels=3):
    return torch.ones(batch, channels, 2, 2, 2)


def kept(image):
    """(B, C): whether a channel holds anything."""
    return image.abs().amax((2, 3, 4)) > 0


def test_at_rate_zero_nothing_is_dropped_but_what_a_case_lacks():
    image = images(batch=2)
    dropped = drop_channels(image, optional=[1, 2], absent=[[], [1]], rate=0.0)
    assert kept(dropped).tolist() == [[True, True, True], [True, False, True]]
    assert bool((image == 1).all())  # the batch itself is left alone


def test_required_channels_stay_and_each_optional_one_goes_at_the_rate():
    torch.manual_seed(0)
    found = kept(drop_channels(images(batch=4000), optional=[1, 2], absent=[[]] * 4000, rate=0.3))
    assert bool(found[:, 0].all())
    # four standard errors of a share of 0.7 in 4000 draws: 0.029
    assert torch.allclose(found[:, 1:].float().mean(0), torch.tensor(0.7), atol=0.029)
    both = (~found[:, 1] & ~found[:, 2]).float().mean()
    assert torch.isclose(both, torch.tensor(0.09), atol=0.02)  # independent of each other


def test_one_channel_always_stays_and_never_one_that_the_case_lacks():
    torch.manual_seed(0)
    batch = 500
    image = images(batch=batch)
    found = kept(drop_channels(image, optional=[0, 1, 2], absent=[[1]] * batch, rate=0.95))
    assert bool(found.any(1).all())
    assert not found[:, 1].any()
    assert found[:, 0].any()
    assert found[:, 2].any()


def test_noise_that_augmentation_wrote_into_an_absent_channel_is_removed():
    image = torch.randn(1, 2, 4, 4, 4)
    dropped = drop_channels(image, optional=[1], absent=[[1]], rate=0.0)
    assert torch.equal(dropped[:, 0], image[:, 0])
    assert not dropped[:, 1].any()
