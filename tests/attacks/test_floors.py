from dataclasses import replace

import torch

from attacks.base import TaskFailure
from attacks.floors import MeanImage, RandomGuess
from fl.specs import NoConfig
from harness.testing import SmallProblem


def test_random_guess_is_uniform_noise():
    small = SmallProblem(n=20, channels=3)
    (answer,) = RandomGuess().solve([small.attack_task(NoConfig())], small.env())
    assert answer.images.shape == (20, 3, 16, 16)
    assert abs(float(answer.images.mean()) - 0.5) < 0.01
    assert abs(float(answer.images.var()) - 1 / 12) < 0.005
    assert answer.labels is None


def test_mean_image_is_the_mean_of_the_public_images():
    small = SmallProblem(n=2)
    task = small.attack_task(NoConfig())
    (answer,) = MeanImage().solve([task], small.env())
    for image in answer.images:
        torch.testing.assert_close(image, task.public.images.mean(0))


def test_without_public_images_there_is_no_mean():
    small = SmallProblem()
    task = replace(small.attack_task(NoConfig()), public=None)
    (answer,) = MeanImage().solve([task], small.env())
    assert isinstance(answer, TaskFailure)
    assert "public_data" in answer.error


def test_a_global_model_gets_one_guess():
    small = SmallProblem(observes="global_model")
    for floor in (RandomGuess(), MeanImage()):
        (answer,) = floor.solve([small.attack_task(NoConfig())], small.env())
        assert len(answer.images) == 1
