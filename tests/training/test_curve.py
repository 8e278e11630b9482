import math

import matplotlib.image
import numpy as np
import pytest

from veloxseg.training.curve import TrainingHistory, draw_training_curve


def history(epochs: int, **replaced: list[float]) -> TrainingHistory:
    steps = [step / max(epochs, 1) for step in range(epochs)]
    values = {
        "train_loss": [1 - step for step in steps],
        "validation_loss": [1 - step / 2 for step in steps],
        "validation_dice": steps,
        "learning_rate": [0.01 * (1 - step) for step in steps],
        "epoch_seconds": [2.0] * epochs,
    }
    return TrainingHistory(**{**values, **replaced})


def coloured(path, colour: tuple[int, int, int]) -> int:
    picture = matplotlib.image.imread(path)[..., :3]
    return int(np.count_nonzero(np.abs(picture - np.array(colour) / 255).max(-1) < 0.05))


def test_both_losses_are_drawn(tmp_path):
    path = draw_training_curve(history(20), tmp_path / "plots" / "curve.png")
    assert [file.name for file in path.parent.iterdir()] == ["curve.png"]
    assert coloured(path, (0x32, 0x67, 0xB1)) > 200
    assert coloured(path, (0xD1, 0x49, 0x5B)) > 200


def test_one_epoch_and_missing_values_can_be_drawn(tmp_path):
    single = draw_training_curve(history(1), tmp_path / "one.png")
    assert coloured(single, (0x32, 0x67, 0xB1)) > 20
    never = [math.nan] * 3
    draw_training_curve(
        history(3, validation_dice=never, epoch_seconds=never), tmp_path / "nan.png"
    )


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="'validation_dice': 1"):
        history(2, validation_dice=[0.5])


def test_a_run_without_epochs_is_refused():
    with pytest.raises(ValueError, match="one value an epoch"):
        history(0)
