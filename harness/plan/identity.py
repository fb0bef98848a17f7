"""Ids of a matrix's trials, hashed from fragments that its cells share."""

from __future__ import annotations

from harness.config.matrix import Matrix
from harness.config.sections import Cell
from harness.plan.keys import trial_id_of


class TrialIds:
    """Gives `keys.trial_id` of a matrix's trials without building their specs."""

    def __init__(self, matrix: Matrix) -> None:
        """Take the sections' canonical JSON."""
        pools = matrix.pools

        def fragments(section: str) -> list[str]:
            return [f'"{section}":{variant.canonical}' for variant in pools.of(section).variants]

        # the keys of a canonical spec in sorted order, the defense's noise budget being one of its own
        protections = [variant.value for variant in pools.defense.variants]
        self._attack = fragments("attack")
        self._attacker = fragments("attacker")
        self._data = fragments("data")
        self._defense = [f'"defense":{protection.plugin.canonical}' for protection in protections]
        self._federation = fragments("federation")
        self._model = fragments("model")
        self._noise_budget = [f'"noise_budget":{protection.noise_budget!r}' for protection in protections]
        self._observe = fragments("observe")
        self._public = fragments("public")
        self._recorded = fragments("recorded")
        self._targets = fragments("targets")
        self._threat_model = fragments("threat_model")

    def of(self, cell: Cell, seed: int) -> str:
        """Return the trial id of `cell` with `seed`."""
        (
            attack,
            attacker,
            data,
            defense,
            federation,
            model,
            observe,
            public,
            recorded,
            targets,
            threat_model,
        ) = cell
        parts = (
            self._attack[attack],
            self._attacker[attacker],
            self._data[data],
            self._defense[defense],
            self._federation[federation],
            self._model[model],
            self._noise_budget[defense],
            self._observe[observe],
            self._public[public],
            self._recorded[recorded],
            f'"seed":{seed}',
            self._targets[targets],
            self._threat_model[threat_model],
        )
        return trial_id_of("{" + ",".join(parts) + "}")
