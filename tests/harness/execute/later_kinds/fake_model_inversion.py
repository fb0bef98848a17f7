"""A participant that kept three rounds of the global model, and says what the last one learned of a class."""

from __future__ import annotations

from torch.nn import functional as F

from attacks.base import Attack, Reconstruction
from fl.cards import AttackCard
from fl.specs import Config


class ModelsConfig(Config):
    images: int = 2


class Participant(Attack[ModelsConfig]):
    def solve(self, tasks, env):
        for task in tasks:
            history, public = task.observation.history, task.public
            assert [view.round for view in history] == [0, 1, 2]
            assert all(view.update is None for view in history)
            own = public.images[public.labels == task.target_label]
            inputs, labels = task.observation.image.normalise(own), public.labels.new_full((len(own),), 0)
            labels += task.target_label
            first, last = (
                F.cross_entropy(env.build(view.sent)(inputs), labels, reduction="none").detach()
                for view in (history[0], history[-1])
            )
            learned = (first - last).argsort(descending=True)[: task.config.images]
            objective = {"learned": float((first - last).mean())}
            yield Reconstruction(task.task_id, own[learned], labels[learned], objective, 0, len(history))


CARD = AttackCard(
    name="participant",
    version=1,
    summary="Shows the public images of a class that the model learned best.",
    config=ModelsConfig,
    implementation="fake_model_inversion:Participant",
    family="model_inversion",
    observes=frozenset({"global_model"}),
    evaluations=lambda config: 0,
)
