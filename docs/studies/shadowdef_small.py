"""From the results of `configs/seeds/shadowdef_small.yaml` to the tables of the study's page.

python docs/studies/shadowdef_small.py results/shadowdef_small
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from defenses.cards_shadowdef import DEFECTS
from harness.analysis.uncertainty import Estimate, clustered_mean, holm, verdict
from harness.results import load

if TYPE_CHECKING:
    import pandas as pd

PLACES = ("none", "gradients", "map", "permuted", "gaussian", "as released", *DEFECTS)
"""In the order of the table; `gradients`: Gaussian noise there."""
SAME = ["attack", "seed", "round", "federation_batch_size", "target"]


def cell_of(text: str) -> str:
    """Return the name of a trial's defense, given its canonical spec."""
    defense = json.loads(text)["defense"]
    config = defense["config"]
    if defense["name"] != "shadowdef":
        return str(defense["name"])
    if config["variant"] == "as_released":
        return "as released"
    switched = [name for name in DEFECTS if config.get(name)]
    return switched[0] if switched else str(config["placement"])


def images_of(folder: str) -> pd.DataFrame:
    """Return one row per reconstructed image, with its trial's floor, ceiling, utility and cell."""
    results = load(folder, tables=("trials", "reconstructions"))
    trials = results.trials[results.trials["status"] == "complete"].copy()
    trials["cell"] = trials["spec"].map(cell_of)
    wanted = ["trial_id", "cell", "federation_batch_size", "floor_psnr_db", "ceiling_psnr_db", "accuracy"]
    images = results.reconstructions.merge(trials[wanted], on="trial_id")
    images["place"] = [
        PLACES.index("gradients" if defense == "gaussian" else cell)
        for defense, cell in zip(images["defense"], images["cell"], strict=True)
    ]
    images["target"] = images["target_id"] + "/" + images["image_id"]
    return images


def undefended(images: pd.DataFrame) -> str:
    """Return how far undefended gradinversion is above the best floor."""
    lines = ["| batch | round | PSNR dB | floor dB | above it |", "|--:|--:|--:|--:|--:|"]
    none = images[(images["cell"] == "none") & (images["attack"] == "gradinversion")]
    groups = [(key, group) for key, group in none.groupby(["federation_batch_size", "round"])]
    for (batch, number), group in [*groups, (("all", "all"), none)]:
        above = clustered_mean(group["psnr_db"] - group["floor_psnr_db"], group["seed"].tolist())
        lines.append(
            f"| {batch} | {number} | {group['psnr_db'].mean():.1f} | {group['floor_psnr_db'].mean():.1f} "
            f"| {_interval(above, 1)} |"
        )
    return "\n".join(lines)


def leakage(images: pd.DataFrame) -> str:
    """Return leakage and utility by defense, budget, attack and attacker."""
    lines = [
        "| defense | budget | attack | attacker | PSNR dB | against none | verdict | SSIM | >= 20 dB "
        "| ceiling dB | accuracy |",
        "|---|--:|---|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    main = images[~images["cell"].isin(DEFECTS)]
    none = main[main["cell"] == "none"]
    groups = [group for _, group in main.groupby(["attack", "attacker", "place", "noise_budget"])]
    differences = [_paired(group, none) for group in groups]
    adjusted = holm([float("nan") if d is None else d.p_value for d in differences])
    for group, difference, p_value in zip(groups, differences, adjusted, strict=True):
        first = group.iloc[0]
        federations = group.drop_duplicates(["seed", "federation_batch_size"])
        accuracy = clustered_mean(federations["accuracy"], federations["seed"].tolist())
        psnr = clustered_mean(group["psnr_db"], group["seed"].tolist())
        ceiling = group["ceiling_psnr_db"].mean()
        cells = [
            first["cell"] if first["defense"] != "shadowdef" else f"shadowdef, {first['cell']}",
            f"{first['noise_budget']:g}",
            first["attack"],
            first["attacker"],
            _interval(psnr, 1),
            "–" if difference is None else _interval(difference, 1),
            "–" if difference is None else verdict(difference, p_value),
            f"{group['ssim'].mean():.2f}",
            f"{100 * group['success_rate'].mean():.0f} %",
            "–" if ceiling >= 100 else f"{ceiling:.1f}",
            _interval(accuracy, 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def placement(images: pd.DataFrame) -> str:
    """Return what putting the noise where the map says changes, against the same energy elsewhere."""
    lines = [
        "| budget | attack | attacker | other placement | map leaks more by dB | verdict |",
        "|--:|---|---|---|--:|---|",
    ]
    keys, found = ["noise_budget", "attack", "attacker"], []
    for key, group in images[images["cell"] == "map"].groupby(keys):
        for other in ("gaussian", "permuted"):
            others = images[(images["cell"] == other) & (images["defense"] == "shadowdef")]
            alike = others.set_index(keys).loc[[key]].reset_index()
            pairs = group.merge(alike[[*SAME, "psnr_db"]], on=SAME, suffixes=("", "_other"))
            more = clustered_mean(pairs["psnr_db"] - pairs["psnr_db_other"], pairs["seed"].tolist())
            found.append((key, other, more))
    adjusted = holm([more.p_value for _, _, more in found])
    for ((budget, attack, attacker), other, more), p_value in zip(found, adjusted, strict=True):
        cells = [f"{budget:g}", attack, attacker, other, _interval(more, 2), verdict(more, p_value)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def defects(images: pd.DataFrame) -> str:
    """Return what each defect of the released code changes, against `map` with none of them."""
    lines = ["| defect | PSNR dB | against fixed | verdict | ceiling dB |", "|---|--:|--:|---|--:|"]
    alike = images[
        (images["attack"] == "gradinversion")
        & (images["attacker"] == "static")
        & (images["round"] == 1)
        & (images["federation_batch_size"] == 4)
        & (images["noise_budget"] == 0.2)
    ]
    fixed = alike[(alike["cell"] == "map")]
    rows = [(name, alike[alike["cell"] == name]) for name in (*DEFECTS, "as released")]
    found = [(name, group, _paired(group, fixed)) for name, group in rows if len(group)]
    adjusted = holm([float("nan") if d is None else d.p_value for _, _, d in found])
    lines.append(
        f"| none (fixed) | {fixed['psnr_db'].mean():.1f} | – | – | {fixed['ceiling_psnr_db'].mean():.1f} |"
    )
    for (name, group, difference), p_value in zip(found, adjusted, strict=True):
        assert difference is not None
        lines.append(
            f"| `{name}` | {group['psnr_db'].mean():.1f} | {_interval(difference, 2)} "
            f"| {verdict(difference, p_value)} | {group['ceiling_psnr_db'].mean():.1f} |"
        )
    return "\n".join(lines)


def _paired(group: pd.DataFrame, others: pd.DataFrame) -> Estimate | None:
    """Return the difference of PSNR on the same private images under the same attack."""
    if group["cell"].iloc[0] == "none":
        return None
    static = others[others["attacker"] == "static"]
    pairs = group.merge(static[[*SAME, "psnr_db"]], on=SAME, suffixes=("", "_other"))
    if not len(pairs):
        return None
    return clustered_mean(pairs["psnr_db"] - pairs["psnr_db_other"], pairs["seed"].tolist())


def _interval(estimate: Estimate, digits: int) -> str:
    if not estimate.known:
        return f"{estimate.mean:.{digits}f}"
    return f"{estimate.mean:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def main(folder: str) -> None:
    """Print the tables."""
    images = images_of(folder)
    sys.stdout.write(
        "\n\n".join([undefended(images), leakage(images), placement(images), defects(images)]) + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1])
