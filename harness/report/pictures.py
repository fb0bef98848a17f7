"""Private images beside what was made of them: what the data set's card allows, unless more is asked for."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fl.errors import StoreError
from harness.report.words import attack, number

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.leakage import Leak
    from harness.results import Results

SNAPSHOTS = 8
"""Pictures in a progression strip."""


class Picture(NamedTuple):
    """A picture for the page.

    Attributes:
        source: `data:` address of the PNG, or None where it may not be shown or is not there.
        text: What it shows, for people who do not see it.
    """

    source: str | None
    text: str


class Pair(NamedTuple):
    """A private image and its reconstruction.

    Attributes:
        role: `worst leak`, `median` or `best defended`.
        original: The private image.
        reconstruction: What the attack made of it.
        caption: Its metrics.
    """

    role: str
    original: Picture
    reconstruction: Picture
    caption: str


class Row(NamedTuple):
    """The gallery of one defense at one budget, under its strongest attack."""

    defense: str
    noise_budget: float
    attack: str
    pairs: tuple[Pair, ...]


class Strip(NamedTuple):
    """How one reconstruction came about."""

    title: str
    pictures: tuple[Picture, ...]


class Album:
    """Reads pictures of an experiment's results.

    Args:
        results: With images.
        include_private: Whether pictures in the private folder are read, too.
    """

    def __init__(self, results: Results, *, include_private: bool) -> None:
        self._results = results
        self._private = include_private
        self._images = results.reconstructions.groupby("trial_id").indices
        self._traces = results.traces.groupby("trial_id").indices
        self.hidden = 0
        """Pictures that were left out because they are private."""
        self.private_shown = 0
        """Private pictures that were read."""

    def images(self, trial_id: str) -> pd.DataFrame:
        """Return a trial's rows of `reconstructions/`."""
        return self._results.reconstructions.iloc[self._images.get(trial_id, [])]

    def gallery(self, labelled: pd.DataFrame, worst: Mapping[Any, Leak]) -> list[Row]:
        """Return a row per defense and budget of a setting: the worst leak, the median, the best defended.

        Args:
            labelled: The setting's complete trials with labels.
            worst: Its strongest attacks, by setting, defense and budget.
        """
        rows = []
        for leak, trials in _by_leak(labelled, worst):
            if pairs := self._pairs(trials):
                rows.append(Row(leak.defense, leak.noise_budget, attack(leak), pairs))
        return rows

    def strips(self, labelled: pd.DataFrame, worst: Mapping[Any, Leak]) -> list[Strip]:
        """Return how the first target with snapshots of each defense's strongest attack came about."""
        found = []
        for leak, trials in _by_leak(labelled, worst):
            traced = min((trial for trial in trials if trial in self._traces), default=None)
            if traced is None:
                continue
            shots = self._results.traces.iloc[self._traces[traced]]
            shots = shots[shots["target_id"] == shots["target_id"].min()].sort_values("iteration")
            shots = shots[(shots["restart"] == shots["restart"].min()) & shots["png"].notna()]
            pictures = tuple(
                self.picture(row["png"], f"after {row['iteration']} iterations")
                for row in shots.iloc[_spread(len(shots))].to_dict("records")
            )
            if any(picture.source for picture in pictures):
                budget = f" at {leak.noise_budget:g}" if leak.defense != "none" else ""
                found.append(Strip(f"{leak.defense}{budget}: {attack(leak)}", pictures))
        return found

    def _pairs(self, trials: Sequence[str]) -> tuple[Pair, ...]:
        places = [place for trial in trials for place in self._images.get(trial, ())]
        images = self._results.reconstructions.iloc[places]
        images = images[images["psnr_db"].notna()]
        if not len(images):
            return ()
        ordered = images.sort_values(
            ["psnr_db", "trial_id", "target_id", "reconstruction_index"], ascending=False
        )
        roles = {"worst leak": 0, "median": len(ordered) // 2, "best defended": len(ordered) - 1}
        return tuple(self._pair(role, ordered.iloc[place].to_dict()) for role, place in roles.items())

    def _pair(self, role: str, row: Mapping[Any, Any]) -> Pair:
        caption = f"{number(row['psnr_db'], 1)} dB, SSIM {number(row['ssim'], 2)}"
        return Pair(
            role,
            self.picture(row["original"], "private image"),
            self.picture(row["png"], f"reconstruction, {caption}"),
            caption,
        )

    def picture(self, png: Mapping[str, Any] | None, text: str) -> Picture:
        """Return a picture of a table's cell, left out if it is private and those are not asked for."""
        if png is None:
            return Picture(None, text)
        content = png["bytes"]
        if content is None and png["path"] is not None:
            if not self._private:
                self.hidden += 1
                return Picture(None, text)
            content = self._read(png)
            self.private_shown += content is not None
        if content is None:
            return Picture(None, text)
        return Picture(f"data:image/png;base64,{base64.b64encode(content).decode()}", text)

    def _read(self, png: Mapping[str, Any]) -> bytes | None:
        try:
            return self._results.file(png)
        except (StoreError, OSError):
            return None


def _by_leak(labelled: pd.DataFrame, worst: Mapping[Any, Leak]) -> Iterator[tuple[Leak, list[str]]]:
    """Yield each leak with the ids of its trials."""
    keys = ["defense_label", "noise_budget", "attack_label", "attacker"]
    trials = labelled.groupby(keys)["trial_id"].agg(list)
    for leak in worst.values():
        yield leak, trials[leak.defense, leak.noise_budget, leak.attack, leak.attacker]


def _spread(count: int) -> list[int]:
    """Return up to `SNAPSHOTS` places of `count`, evenly spread, the first and the last among them."""
    if count <= SNAPSHOTS:
        return list(range(count))
    return [round(number * (count - 1) / (SNAPSHOTS - 1)) for number in range(SNAPSHOTS)]
