"""From the results of the FedInverse studies to the study's page, in Markdown.

python docs/studies/fedinverse_small.py results/fedinverse_small results/fedinverse_mnist5k \
    > docs/studies/fedinverse_small.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.by_round import against_floor, courses, later
from harness.analysis.labels import with_labels
from harness.analysis.markdown import shown, table
from harness.analysis.measures import MEASURES
from harness.analysis.uncertainty import clustered_mean, holm, verdict
from harness.results import load

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.by_round import Course, Level
    from harness.results import Results

ATTACKS = {"gmi": "GMI", "kedmi": "KED-MI", "vmi": "VMI", "plgmi": "PLG-MI"}
DEFENSES = {"none": "none", "bido": "BiDO", "mid_dependence": "MID, by dependence"}
FLOOR = "random_prior"


class Study:
    """An experiment in which a participant attacks, attack by attack and round by round."""

    def __init__(self, folder: str | Path) -> None:
        """Read the complete trials of the experiment in `folder`."""
        self.results: Results = load(folder, tables=("trials", "rounds", "reconstructions"))
        trials = self.results.trials
        self.trials: pd.DataFrame = trials[trials["status"] == "complete"]
        found = courses(with_labels(self.trials), self.results.rounds)
        order = [(defense, attack) for defense in DEFENSES for attack in ATTACKS]
        by_cell = {(course.defense.split()[0], course.attack.split()[0]): course for course in found}
        self.courses: dict[tuple[str, str], Course] = {
            cell: by_cell[cell] for cell in order if cell in by_cell
        }

    @property
    def rounds(self) -> list[int]:
        """The attacked rounds, in order."""
        return sorted(self.trials["round"].unique())

    def of_seeds(self, attack: str, defense: str, round_: int) -> pd.DataFrame:
        """Return the trials of a cell at a round, by seed."""
        trials = self.trials
        chosen = (trials["attack"] == attack) & (trials["defense"] == defense) & (trials["round"] == round_)
        return trials[chosen].set_index("seed").sort_index()


def by_round(study: Study, name: str) -> str:
    """Return a measure at every attacked round, its change, and what real images and the floor have."""
    digits = MEASURES[name].digits
    rows = []
    for (defense, attack), course in study.courses.items():
        levels = [at.levels[name] for at in course.rounds]
        change = course.change[name]
        rows.append(
            [
                DEFENSES[defense],
                ATTACKS[attack],
                *(shown(level.value, digits) for level in levels),
                f"{shown(change, digits)}, {later(change, MEASURES[name])}",
                *(f"{level.floor.mean:.{digits}f}" for level in levels),
                f"{levels[-1].ceiling.mean:.{digits}f}",
            ]
        )
    rounds = [f"round {number}" for number in study.rounds]
    head = ["defense", "attack", *rounds, "last - first", *(f"floor, {one}" for one in rounds), "real images"]
    return table(head, 2 * len(rounds) + 2, rows)


def beyond_floor(study: Study, name: str) -> str:
    """Return how far each attack is beyond its floor at each round, paired by seed."""
    rows = []
    for (defense, attack), course in study.courses.items():
        cells = [_excess(at.levels[name], MEASURES[name].digits) for at in course.rounds]
        rows.append([DEFENSES[defense], ATTACKS[attack], *cells])
    head = ["defense", "attack", *(f"round {number}" for number in study.rounds)]
    return table(head, len(study.rounds), rows)


def _excess(level: Level, digits: int) -> str:
    return f"{shown(level.excess, digits)}, {against_floor(level.excess)}"


def defended(study: Study, name: str) -> str:
    """Return what each defense changes for each attack at the last round, paired by seed."""
    last, digits = study.rounds[-1], MEASURES[name].digits
    cells = [cell for cell in study.courses if cell[0] != "none"]
    changes = []
    for defense, attack in cells:
        pairs = [study.of_seeds(attack, each, last)[name] for each in (defense, "none")]
        difference = (pairs[0] - pairs[1]).dropna()
        changes.append(clustered_mean(difference.to_numpy(dtype=float), difference.index.tolist()))
    adjusted = holm([change.p_value for change in changes])
    rows = [
        [
            DEFENSES[defense],
            ATTACKS[attack],
            verdict(change, p, leaks_more=MEASURES[name].leaks_more),
            shown(change, digits),
        ]
        for (defense, attack), change, p in zip(cells, changes, adjusted, strict=True)
    ]
    return table(["defense", "attack", "finding", f"{MEASURES[name].title}, defended - none"], 1, rows)


def utility(study: Study) -> str:
    """Return the models' accuracy on test images of all ten digits, at each attacked round."""
    rows = []
    for defense, title in DEFENSES.items():
        course = next((course for (name, _), course in study.courses.items() if name == defense), None)
        if course is not None:
            rows.append([title, *(shown(at.utility, 3) for at in course.rounds if at.utility is not None)])
    return table(["defense", *(f"round {number}" for number in study.rounds)], len(study.rounds), rows)


def alone(study: Study) -> str:
    """Return the attacks of an experiment with one round and no defense, beside floor and real images."""
    names = ("attack_top1", "attack_top5", "knn_distance", "evaluator_fid", "pairwise_distance")
    found = [name for name in names if study.trials[name].notna().any()]
    last = study.rounds[-1]
    rows = []
    for attack, title in {**ATTACKS, FLOOR: "random images of the generator"}.items():
        trials = study.of_seeds(attack, "none", last)
        if len(trials):
            rows.append([title, *(_over_seeds(trials, name, name) for name in found)])
    trials = study.of_seeds(FLOOR, "none", last)
    rows.append(["real images", *(_over_seeds(trials, f"ceiling_{name}", name) for name in found)])
    return table(["", *(MEASURES[name].title for name in found)], len(found), rows)


def _over_seeds(trials: pd.DataFrame, column: str, name: str) -> str:
    values = trials[column].to_numpy(dtype=float)
    measure = MEASURES[name]
    estimate = clustered_mean(values, trials.index.tolist()).within(measure.low, measure.high)
    return shown(estimate, measure.digits)


def costs(study: Study) -> str:
    """Return what an attack of a trial costs, the GANs not counted."""
    rows = []
    for attack, title in ATTACKS.items():
        trials = study.trials[study.trials["attack"] == attack]
        evaluations = trials["gradient_evaluations"].mean()
        rows.append([title, f"{evaluations:,.0f}", f"{trials['cpu_s'].mean():.1f}"])
    return table(["attack", "gradient evaluations", "CPU s"], 2, rows)


def page(small: Study, larger: Study) -> str:
    """Return the study's page: the words beside this file, with every number filled in."""
    words = Path(__file__).with_name("fedinverse_small.page").read_text(encoding="utf-8")
    judged = [f"{100 * study.trials['evaluator_accuracy'].max():.1f}" for study in (small, larger)]
    return words.format(
        trials=len(small.trials),
        seeds=small.trials["seed"].nunique(),
        first=small.rounds[0],
        last=small.rounds[-1],
        evaluator=judged[0],
        larger_evaluator=judged[1],
        larger_seeds=larger.trials["seed"].nunique(),
        utility=utility(small),
        top1=by_round(small, "attack_top1"),
        beyond=beyond_floor(small, "attack_top1"),
        knn=by_round(small, "knn_distance"),
        fid=by_round(small, "evaluator_fid"),
        defended=defended(small, "attack_top1"),
        defended_knn=defended(small, "knn_distance"),
        alone=alone(larger),
        costs=costs(small),
    )


def main(small: str, larger: str) -> None:
    """Print the page."""
    sys.stdout.write(page(Study(small), Study(larger)))


if __name__ == "__main__":
    main(*sys.argv[1:])
