"""From the results of `configs/seeds/dlg_defenses.yaml` to the table and the picture of the study's page.

python docs/studies/dlg_defenses.py results/dlg_defenses
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from harness.results import Results, load

if TYPE_CHECKING:
    import pandas as pd

CELLS = (
    "none",
    "pruning 20 %",
    "4-bit quantization",
    "noise 1e-3",
    "pruning, released",
    "quantization, released",
    "noise, released",
)
SIDE, GAP, HEAD = 64, 4, 28
"""Pixels of a picture, between pictures, and of the line of names."""


def cell_of(spec: str) -> str:
    """Return the name of a trial's cell, given its canonical spec."""
    defense = json.loads(spec)["defense"]
    if defense["name"] == "chain":
        return {2: "quantization, released", 3: "noise, released"}[len(defense["config"]["links"])]
    if defense["config"].get("variant") == "as_released":
        return "pruning, released"
    return {
        "none": "none",
        "pruning": "pruning 20 %",
        "quantization": "4-bit quantization",
        "gaussian": "noise 1e-3",
    }[defense["name"]]


def table(trials: pd.DataFrame) -> str:
    """Return one line per cell: medians and shares over its ten networks."""
    lines = [
        "| cell | median PSNR | of photographs | of slices | 20 dB and more | 30 dB and more | "
        "oracle constant | above it | label right |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for cell in CELLS:
        rows = trials[trials["cell"] == cell]
        psnr, constant = rows["psnr_db"], rows["oracle_constant_psnr_db"]
        by_data = psnr.groupby(rows["dataset"]).median()
        counts = [
            (psnr >= 20).sum(),
            (psnr >= 30).sum(),
            (psnr > constant).sum(),
            rows["label_accuracy"].sum(),
        ]
        shares = [f"{int(count)}/{len(rows)}" for count in counts]
        lines.append(
            f"| {cell} | {psnr.median():.1f} dB | {by_data['photographs']:.1f} | {by_data['medslices']:.1f} "
            f"| {shares[0]} | {shares[1]} | {constant.median():.1f} dB | {shares[2]} | {shares[3]} |"
        )
    return "\n".join(lines)


def picture(results: Results) -> Image.Image:
    """Return the ten private images, a row each, beside what each cell's attack made of them."""
    shown = results.reconstructions.merge(results.trials[["trial_id", "cell"]], on="trial_id")
    networks = sorted(set(zip(shown["dataset"], shown["seed"], strict=True)), reverse=True)
    width = (len(CELLS) + 1) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, HEAD + len(networks) * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(("original", *CELLS)):
        draw.multiline_text(
            (GAP + column * (SIDE + GAP), 2), name.replace(" ", "\n", 1), "black", font_size=10
        )
    for row, (dataset, seed) in enumerate(networks):
        of_network = shown[(shown["dataset"] == dataset) & (shown["seed"] == seed)].set_index("cell")
        pngs = [of_network["original"].iloc[0], *(of_network.loc[cell, "png"] for cell in CELLS)]
        for column, png in enumerate(pngs):
            tile = Image.fromarray(_rgb(results, png)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(tile, (GAP + column * (SIDE + GAP), HEAD + row * (SIDE + GAP)))
    return sheet


def _rgb(results: Results, png: dict[str, Any]) -> np.ndarray:
    pixels = results.picture(png)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def main(folder: str) -> None:
    """Print the table and write the picture beside this file."""
    results = load(folder, tables=("trials", "reconstructions"), images=True)
    results.trials["cell"] = results.trials["spec"].map(cell_of)
    target = Path(__file__).with_suffix(".png")
    picture(results).save(target, optimize=True)
    sys.stdout.write(f"{table(results.trials)}\n\nwrote {target} ({target.stat().st_size / 1000:.0f} KB)\n")


if __name__ == "__main__":
    main(sys.argv[1])
