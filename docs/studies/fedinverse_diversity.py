"""From the results of `configs/seeds/fedinverse_diversity.yaml` to the page on FedInverse, in Markdown.

python docs/studies/fedinverse_diversity.py results/fedinverse_diversity > docs/attacks/fedinverse.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.markdown import shown, table
from harness.analysis.measures import MEASURES
from harness.analysis.uncertainty import Estimate, clustered_mean, holm, verdict
from harness.results import load

if TYPE_CHECKING:
    import pandas as pd

ATTACKS = {"gmi": "GMI", "kedmi": "KED-MI", "vmi": "VMI"}
WEIGHT = "attack_diversity_weight"
SHOWN = ("attack_top1", "knn_distance", "evaluator_fid")
ALIKE = "pairwise_distance"


def read(folder: str | Path) -> pd.DataFrame:
    """Return the complete trials of the experiment in `folder`."""
    trials = load(folder, tables=["trials"]).trials
    return trials[trials["status"] == "complete"]


def cell(trials: pd.DataFrame, attack: str, weight: float) -> pd.DataFrame:
    """Return an attack's trials at a weight, by seed."""
    chosen = trials[(trials["attack"] == attack) & (trials[WEIGHT] == weight)]
    return chosen.set_index("seed").sort_index()


def change(trials: pd.DataFrame, attack: str, weight: float) -> Estimate:
    """Return by how much a weight moves the images of a label apart, paired by seed."""
    pairs = [cell(trials, attack, each)[ALIKE] for each in (weight, 0.0)]
    difference = (pairs[0] - pairs[1]).dropna()
    return clustered_mean(difference.to_numpy(dtype=float), difference.index.tolist())


def rows(trials: pd.DataFrame) -> list[list[str]]:
    """Return the table's rows: each attack at each weight."""
    cells = [
        (attack, weight)
        for attack in ATTACKS
        for weight in sorted(trials.loc[trials["attack"] == attack, WEIGHT].unique())
    ]
    compared = {one: change(trials, *one) for one in cells if one[1] != 0}
    adjusted = dict(zip(compared, holm([each.p_value for each in compared.values()]), strict=True))
    found = []
    for attack, weight in cells:
        own = cell(trials, attack, weight)
        means = [f"{own[name].mean():.{MEASURES[name].digits}f}" for name in (*SHOWN, ALIKE)]
        words, moved = "-", "-"
        if weight:
            one = compared[attack, weight]
            words = {"leaks more": "further apart", "leaks less": "closer together"}.get(
                told := verdict(one, adjusted[attack, weight], leaks_more="higher"), told
            )
            moved = shown(one, MEASURES[ALIKE].digits)
        found.append([ATTACKS[attack], f"{weight:g}", *means, moved, words])
    return found


def comparison(trials: pd.DataFrame) -> str:
    """Return the table in Markdown, the floor and real images at its end."""
    names = (*SHOWN, ALIKE)
    heads = ["attack", "weight", *(MEASURES[name].title for name in names), "against weight 0", "of a label"]
    floor = trials[trials["attack"] == "random_prior"]
    yardsticks = [("random images of the generator", ""), ("real images", "ceiling_")]
    ends = [
        [title, "", *(f"{floor[prefix + name].mean():.{MEASURES[name].digits}f}" for name in names), "", ""]
        for title, prefix in yardsticks
    ]
    return table(heads, len(heads) - 2, [*rows(trials), *ends], after=1)


def page(trials: pd.DataFrame) -> str:
    """Return the page: the words beside this file, with the table filled in."""
    words = Path(__file__).with_name("fedinverse_diversity.page").read_text(encoding="utf-8")
    return words.format(table=comparison(trials), seeds=trials["seed"].nunique(), trials=len(trials))


def main(folder: str) -> None:
    """Print the page."""
    sys.stdout.write(page(read(folder)))


if __name__ == "__main__":
    main(sys.argv[1])
