"""From the results of `configs/seeds/ggl_small.yaml` to the study's page, in Markdown.

python docs/studies/ggl_small.py results/ggl_small > docs/studies/ggl_small.md
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from scipy.stats import kendalltau

from harness.analysis.markdown import shown as in_markdown
from harness.analysis.markdown import table
from harness.analysis.uncertainty import Estimate, clustered_mean, holm, verdict
from harness.results import load

if TYPE_CHECKING:
    import pandas as pd

ATTACKS = {"dlg": "DLG", "idlg": "iDLG", "inverting_gradients": "IG", "gradinversion": "GI", "ggl": "GGL"}
"""With the names that the paper has for them."""
DEFENSES = {
    "gaussian": "additive noise",
    "clipping": "clipping",
    "pruning": "sparsification",
    "soteria": "Soteria",
}
PRIOR_ONLY = "prior_only"
"""GGL that looks at no gradient: the image of a random latent vector."""
SAME = ["seed", "target"]


class Metric(NamedTuple):
    """A column of the paper's table 3.

    Attributes:
        title: Its name.
        digits: Shown after the point.
        leaks_more: Which way means that more leaked.
        factor: What it is multiplied by to be shown.
    """

    title: str
    digits: int
    leaks_more: Literal["higher", "lower"] = "lower"
    factor: float = 1.0

    def best(self, values: list[float]) -> int:
        """Return the position of the value that leaks most."""
        return int(np.argmax(values) if self.leaks_more == "higher" else np.argmin(values))


METRICS = {
    "mse_i": Metric("MSE-I", 3),
    "psnr_ref_db": Metric("PSNR dB", 1, "higher"),
    "lpips_vgg": Metric("LPIPS", 3),
    "mse_r": Metric("1000 MSE-R", 2, factor=1000.0),
}
PUBLISHED = {
    "dlg": """0.6479 1.8843 0.8197 0.0021  0.2097 6.7831 0.7375 0.0326
              0.3335 4.7679 0.7986 0.0155  0.3624 4.4069 0.8007 0.0285""",
    "idlg": """0.6261 2.0329 0.8209 0.0025  0.1960 7.0762 0.7280 0.0326
               0.3301 4.8124 0.8035 0.0162  0.3269 4.8553 0.8036 0.0396""",
    "inverting_gradients": """0.4880 3.1151 0.8260 0.0097  0.0543 12.6517 0.2998 0.0003
                              0.4103 3.8687 0.7975 0.0113  0.3441 4.6326 0.8008 0.0316""",
    "gradinversion": """0.5738 2.4116 0.8302 0.0023  0.1790 7.4701 0.7142 0.0322
                        0.2958 5.2888 0.7775 0.0163  0.3179 4.9768 0.7991 0.0409""",
    "ggl": """0.0780 11.0766 0.1906 0.0010  0.0760 11.1902 0.1670 0.0015
              0.0768 11.1466 0.1620 0.0007  0.0968 10.1434 0.2561 0.0007""",
}
"""Table 3 of Li et al. 2022, arXiv 2203.15696, CelebA: by attack, the metrics under each defense."""


def published(attack: str, defense: str, metric: str) -> float:
    """Return a number of the paper's table."""
    place = len(METRICS) * list(DEFENSES).index(defense) + list(METRICS).index(metric)
    return float(PUBLISHED[attack].split()[place])


class Study:
    """The images that the attacks made, one row each."""

    def __init__(self, folder: str | Path) -> None:
        """Read the complete trials of the experiment in `folder`."""
        results = load(folder, tables=("trials", "reconstructions"))
        trials = results.trials[results.trials["status"] == "complete"].copy()
        only = (trials["attack"] == "ggl") & (trials["attack_optimizer"] == "random")
        trials["who"] = trials["attack"].where(~only, PRIOR_ONLY)
        wanted = ["trial_id", "who", "label_accuracy", "n_targets", "gradient_evaluations", "cpu_s"]
        self.images: pd.DataFrame = results.reconstructions.merge(trials[wanted], on="trial_id")
        self.images["target"] = self.images["target_id"] + "/" + self.images["image_id"]

    def cell(self, who: str, defense: str, attacker: str) -> pd.DataFrame:
        """Return the images of one cell."""
        images = self.images
        chosen = (images["who"] == who) & (images["defense"] == defense) & (images["attacker"] == attacker)
        return images[chosen]

    def in_paper(self, who: str, defense: str) -> pd.DataFrame:
        """Return the images of a cell of the paper's table: only GGL knows the defense there."""
        return self.cell(who, defense, "adaptive" if who == "ggl" else "static")

    def rival(self, defense: str, attacker: str, metric: str) -> str:
        """Return the attack other than GGL from which most leaks."""
        others = [who for who in ATTACKS if who != "ggl"]
        means = [self.cell(who, defense, attacker)[metric].mean() for who in others]
        return others[METRICS[metric].best(means)]


def mean(group: pd.DataFrame, metric: str) -> Estimate:
    """Return a metric's mean over images, with its interval over federations."""
    return clustered_mean(group[metric], group["seed"].tolist())


def difference(group: pd.DataFrame, other: pd.DataFrame, metric: str) -> Estimate:
    """Return the mean difference on the same private images."""
    pairs = group.merge(other[[*SAME, metric]], on=SAME, suffixes=("", "_other"))
    return clustered_mean(pairs[metric] - pairs[f"{metric}_other"], pairs["seed"].tolist())


def shown(estimate: Estimate, metric: str) -> str:
    """Return a mean in the metric's digits, with its interval where there is one."""
    return in_markdown(estimate, METRICS[metric].digits, factor=METRICS[metric].factor)


def beside_the_paper(study: Study) -> str:
    """Return table 3's cells, each beside the published one."""
    head = ["attack", "metric", *(word for title in DEFENSES.values() for word in (title, "published"))]
    rows = []
    for (who, title), (name, metric) in product(ATTACKS.items(), METRICS.items()):
        cells = []
        for defense in DEFENSES:
            theirs = metric.factor * published(who, defense, name)
            cells += [shown(mean(study.in_paper(who, defense), name), name), f"{theirs:.{metric.digits}f}"]
        rows.append([title, metric.title, *cells])
    return table(head, 2 * len(DEFENSES), rows)


def undefended(study: Study) -> str:
    """Return what the attacks make of undefended gradients, and what those get who look at none."""
    rows = []
    for who, title in {**ATTACKS, PRIOR_ONLY: "image of a random latent vector"}.items():
        group = study.cell(who, "none", "static")
        rows.append([title, *(shown(mean(group, name), name) for name in METRICS), right(group)])
    return table(["attack", *(metric.title for metric in METRICS.values()), "labels right"], 5, rows)


def right(group: pd.DataFrame) -> str:
    """Return how many labels were recovered, of how many."""
    trials = group.drop_duplicates("trial_id")
    return f"{(trials['label_accuracy'] * trials['n_targets']).sum():.0f}/{trials['n_targets'].sum():.0f}"


def adaptation(study: Study, metric: str) -> str:
    """Return what knowing the defense changes, on the same images."""
    cells = list(product(DEFENSES, ATTACKS))
    pairs = [[study.cell(who, defense, a) for a in ("static", "adaptive")] for defense, who in cells]
    found = [difference(adaptive, static, metric) for static, adaptive in pairs]
    adjusted = holm([one.p_value for one in found])
    rows = []
    for (defense, who), groups, change, p_value in zip(cells, pairs, found, adjusted, strict=True):
        numbers = [shown(mean(group, metric), metric) for group in groups]
        words = verdict(change, p_value, leaks_more=METRICS[metric].leaks_more)
        rows.append([DEFENSES[defense], ATTACKS[who], words, *numbers, shown(change, metric)])
    return table(["defense", "attack", "verdict", "static", "adaptive", "adaptive - static"], 3, rows)


def ranks(study: Study) -> str:
    """Return which attack comes first, here and in the paper, and how far all come in the same order."""
    rows = []
    for (name, metric), (defense, title) in product(METRICS.items(), DEFENSES.items()):
        ours = [float(study.in_paper(who, defense)[name].mean()) for who in ATTACKS]
        theirs = [published(who, defense, name) for who in ATTACKS]
        first = [list(ATTACKS.values())[metric.best(values)] for values in (ours, theirs)]
        rows.append([metric.title, title, *first, f"{kendalltau(ours, theirs).statistic:.1f}"])
    return table(["metric", "defense", "first here", "first in the paper", "Kendall's tau"], 1, rows)


def against_rivals(study: Study) -> str:
    """Return whether GGL comes before the best attack on pixels, as the paper's table says or not."""
    cells = list(product(("mse_i", "lpips_vgg"), DEFENSES, ("static", "adaptive")))
    found = []
    for metric, defense, attacker in cells:
        rival = study.cell(study.rival(defense, attacker, metric), defense, attacker)
        found.append(difference(study.cell("ggl", defense, "adaptive"), rival, metric))
    adjusted = holm([one.p_value for one in found])
    rows = []
    for (metric, defense, attacker), change, p_value in zip(cells, found, adjusted, strict=True):
        best = min(published(who, defense, metric) for who in ATTACKS if who != "ggl")
        words = verdict(change, p_value)  # of an error: more is worse
        answer = {"leaks more": "behind", "leaks less": "ahead"}.get(words, words)
        there = "ahead" if published("ggl", defense, metric) < best else "behind"
        against = f"{ATTACKS[study.rival(defense, attacker, metric)]}, {attacker}"
        title = METRICS[metric].title
        rows.append([title, DEFENSES[defense], against, there, answer, shown(change, metric)])
    return table(
        ["metric", "defense", "against the best other", "GGL in the paper", "GGL here", "GGL - other"],
        1,
        rows,
    )


def costs(study: Study) -> str:
    """Return what an image costs each attack."""
    rows = []
    for who, title in ATTACKS.items():
        trials = study.images[study.images["who"] == who].drop_duplicates("trial_id")
        each = [trials[name].sum() / trials["n_targets"].sum() for name in ("gradient_evaluations", "cpu_s")]
        rows.append([title, f"{each[0]:,.0f}", f"{each[1]:.1f}"])
    return table(["attack", "gradient evaluations per image", "CPU s per image"], 2, rows)


def page(study: Study) -> str:
    """Return the study's page: the words beside this file, with every number filled in."""
    words = Path(__file__).with_name("ggl_small.page").read_text(encoding="utf-8")
    images = study.images
    labels = [f"{title} {right(study.cell('ggl', name, 'static'))}" for name, title in DEFENSES.items()]
    return words.format(
        targets=len(images.drop_duplicates(SAME)),
        federations=images["seed"].nunique(),
        trials=images["trial_id"].nunique(),
        costs=costs(study),
        undefended=undefended(study),
        beside_the_paper=beside_the_paper(study),
        ranks=ranks(study),
        against_rivals=against_rivals(study),
        adaptation=adaptation(study, "mse_i"),
        representation=adaptation(study, "mse_r"),
        labels=", ".join(labels),
    )


def main(folder: str) -> None:
    """Print the page."""
    sys.stdout.write(page(Study(folder)))


if __name__ == "__main__":
    main(sys.argv[1])
