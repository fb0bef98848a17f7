"""What was assumed and what was found, in sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis.labels import attack_of
from harness.analysis.measures import MEASURES, SHOWN, Measure, Seen
from harness.analysis.uncertainty import Estimate

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.by_round import Course
    from harness.analysis.leakage import Leak

SEES = {
    "update": "one client's update at a time",
    "aggregate": "only the sum of several clients' updates",
    "global_model": "the global models up to the observed round, no update",
}
BATCH_NORM = {
    "none": "no batch-norm statistics",
    "proxy": "batch-norm statistics estimated from public images",
    "running": "the running batch-norm statistics of the model sent",
    "inferred": "the batch's batch-norm statistics, inferred from those shared before and after",
    "exact": "the batch's exact batch-norm statistics",
}

FINDINGS: Mapping[str, str] = {
    "leakage shown": "the whole interval lies above the floor",
    "some images leaked": "not shown to be above the floor on average, but more images than the floor's "
    "reached 20 dB: some clients were not protected",
    "no leakage shown": "neither; this attack found nothing here, which does not rule out a stronger one",
    "too few federations": "a single seed has no interval; run more seeds",
    "not measured": "the private images, or this metric, are not known, or no floor was run to compare with",
}
MODEL_FLOOR = (
    "A floor is an attacker who knows nothing of the model and shows random images of the prior, judged in "
    "the same way; at 0 and below the model gave nothing away that the attack could use"
)
JUDGED: Mapping[str, str] = {
    "evaluator": "who judges the images that were made of a model: a classifier of its own, trained on "
    "images that no client and no attacker has. No attack ever sees it",
    "attack accuracy": "the share of an attack's images that the evaluator takes for the class that the "
    "attack was after (top-5: has among its first five). It says that an image shows the class, not that it "
    "shows a client's image",
    "KNN distance": "squared Euclidean distance of an image to the nearest private one of its class, in the "
    "evaluator's features. The centre distance is that to the mean of the class",
    "evaluator FID": "Fréchet distance between all images of an attack and private ones, in the evaluator's "
    "features: not Inception's, so that it compares with no FID published elsewhere",
    "ceiling": "real images that the model was not trained on, judged in the place of the attack's",
}
VERDICTS: Mapping[str, str] = {
    "leaks less": "the same attack takes less than without a defense from the same images",
    "leaks more": "it takes more",
    "not distinguishable": "the data do not tell the two apart, among all that are compared here; that "
    "does not make them equal",
    "too few federations": "a single seed has no interval; run more seeds",
}


def legend(leaks: Iterable[Leak]) -> list[tuple[str, str]]:
    """Return the words that a report uses and what they mean; of findings and verdicts those it has."""
    found = list(leaks)
    findings = {leak.finding for leak in found}
    verdicts = {leak.versus_none for leak in found if leak.versus_none}
    return [
        *_leakage([MEASURES[name] for name in dict.fromkeys(leak.metric for leak in found)]),
        *((name, words) for name, words in FINDINGS.items() if name in findings),
        *((name, words) for name, words in VERDICTS.items() if name in verdicts - findings),
    ]


def _leakage(told: Sequence[Measure]) -> Iterator[tuple[str, str]]:
    """Yield what leakage is, of updates and of models, and by whom the latter is judged."""
    updates = [measure for measure in told if measure.column in SHOWN["updates"]]
    models = [measure for measure in told if measure.column in SHOWN["models"]]
    if updates:
        yield (
            "leakage",
            f"{updates[0].beyond_floor}, on the same targets. A floor is an attacker who never saw the "
            "update and answers with noise or with the mean public image; at 0 and below the update gave "
            "nothing away that the attack could use",
        )
    if models:
        name = "leakage of models" if updates else "leakage"
        yield name, f"{models[0].beyond_floor}, of the model of the last observed round. {MODEL_FLOOR}"
        yield from JUDGED.items()


def gave(seen: Collection[Seen]) -> str:
    """Return what gave private images away."""
    if "models" not in seen:
        return "their updates"
    return "their updates and the global models" if "updates" in seen else "the global models"


def counted(counts: Mapping[str, int]) -> str:
    """Return how many trials became what."""
    parts = [f"{count:,} {status.replace('_', ' ')}" for status, count in counts.items() if count]
    return f"{_listed(parts)} {'trial' if sum(counts.values()) == 1 else 'trials'}"


def threat_models(specs: Iterable[str]) -> list[str]:
    """Return what the adversaries of some trials see and know, a sentence or two for each kind."""
    found: dict[str, None] = {}
    for text in specs:
        spec = json.loads(text)
        sentence = _threat_model(spec["threat_model"], spec["observe"], spec["attacker"])
        found.setdefault(f"{sentence}{_attackers(spec['federation'])}")
    return list(found)


def _attackers(federation: Mapping[str, Any] | None) -> str:
    """Say which clients attack and which classes either side holds; nothing where none attacks."""
    attacker = (federation or {}).get("attacker")
    if attacker is None:
        return ""
    count, others = attacker["clients"], attacker["others"]
    who = "One of the clients attacks and holds" if count == 1 else f"{count} of the clients attack and hold"
    theirs = "all classes" if others is None else f"the classes {_listed([str(each) for each in others])}"
    return (
        f" {who} the classes {_listed([str(each) for each in attacker['labels']])}; the others hold {theirs}."
    )


def _threat_model(threat: Mapping[str, Any], observe: Mapping[str, Any], attacker: str) -> str:
    who = f"{_article(threat['behaviour'])} {threat['behaviour']} {threat['position']}"
    changes = threat.get("manipulation")
    changed = f", who changes the model it sends ({changes['name']})," if changes else ""
    sees = SEES[observe["kind"]]
    if observe.get("form") == "parameter_difference":
        sees += ", inferred from the models before and after"
    knowledge = threat["knowledge"]
    knows = [
        "the labels" if knowledge["labels"] == "known" else None,
        "how clients train locally" if knowledge["local_hyperparameters"] else None,
        BATCH_NORM[knowledge["batch_norm"]] if knowledge["batch_norm"] != "none" else None,
        "public images of the same kind" if knowledge["public_data"] else None,
        "the defense and its settings" if attacker == "adaptive" else None,
    ]
    known = [one for one in knows if one]
    labels = knowledge["labels"] != "known" and observe["kind"] != "global_model"
    missing = ["the labels"] if labels else []
    missing += [] if attacker == "adaptive" else ["anything about the defense"]
    sentence = (
        f"{who.capitalize()}{changed} sees {sees}. It knows {_listed(known) if known else 'nothing else'}"
    )
    return f"{sentence}; it does not know {_listed(missing, last='or')}." if missing else f"{sentence}."


def interval(estimate: Estimate, digits: int) -> str:
    """Return `mean (low to high)`; without an interval, the mean and why."""
    mean = number(estimate.mean, digits)
    if not estimate.known:
        return mean
    return f"{mean} ({number(estimate.low, digits)} to {number(estimate.high, digits)})"


def number(value: float | None, digits: int) -> str:
    """Return a number with so many digits behind the point; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def share(value: float) -> str:
    """Return a share as a percentage; a dash for none."""
    return "–" if math.isnan(value) else f"{number(100 * value, 0)} %"


def budget(value: float) -> str:
    """Return a noise budget as people write it."""
    return f"{value:g}"


def attack(found: Leak | Course) -> str:
    """Return the name of an attack, with what its attacker knows."""
    return attack_of(found.attack, found.attacker)


def reasons(trials: pd.DataFrame, status: str) -> list[tuple[str, int]]:
    """Return why trials have a status, and how many each reason concerns, most frequent first."""
    errors = trials.loc[trials["status"] == status, "error"].fillna("no reason given")
    counted = errors.value_counts()
    pairs = [(str(reason), int(count)) for reason, count in counted.items()]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def _article(word: str) -> str:
    return "an" if word[:1] in "aeiouh" else "a"


def _listed(items: list[str], *, last: str = "and") -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def conditions(names: Sequence[str]) -> str:
    """Return the conditions that something was measured under, or how many they are."""
    return names[0] if len(names) == 1 else f"{len(names)} conditions"
