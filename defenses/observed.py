"""What an observation says about the training behind it."""

from __future__ import annotations

from fl.types import Observation


def one_gradient_of_one_image(observation: Observation) -> bool:
    """Return whether the update is known to be (a multiple of) a single gradient of a single image.

    Weight decay makes it more than that; a proximal term is 0 in the first step.
    """
    if observation.kind != "update" or observation.n_images != 1:
        return False
    local = observation.knowledge.local_training
    if local is None:
        return observation.update.kind == "gradient"
    return local.steps == 1 and not local.weight_decay
