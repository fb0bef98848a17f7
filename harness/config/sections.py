"""The sections of a cell, each distinct value of which is built, validated and made canonical once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from fl.specs import FederationSpec, ObserveSpec, Plugin, Recorded, ThreatModel, TrialSpec, canonical_json
from harness.config.yaml_loader import Mark

T = TypeVar("T")
Attacker = Literal["static", "adaptive"]


class Cell(NamedTuple):
    """One cell of a matrix without its seed: which variant of each section, by index."""

    attack: int
    attacker: int
    data: int
    defense: int
    federation: int
    model: int
    observe: int
    public: int
    recorded: int
    targets: int
    threat_model: int


SECTIONS: tuple[str, ...] = Cell._fields


class Protection(NamedTuple):
    """A defense with its noise budget filled into its configuration.

    Attributes:
        plugin: The defense.
        noise_budget: Its headline strength, in its unit; 0.0 for a defense without one.
    """

    plugin: Plugin
    noise_budget: float


@dataclass(frozen=True)
class Variant(Generic[T]):
    """One value of a section, shared by all cells that have it.

    Attributes:
        value: The validated value.
        canonical: Its canonical JSON, distinct for distinct values.
        mark: Where it is written.
    """

    value: T
    canonical: str
    mark: Mark


@dataclass
class Pool(Generic[T]):
    """The distinct variants of one section."""

    variants: list[Variant[T]] = field(default_factory=list)
    _index: dict[str, int] = field(default_factory=dict)

    def add(self, value: T, mark: Mark) -> int:
        """Return the index of `value`, added if it is new."""
        canonical = canonical_of(value)
        if canonical not in self._index:
            self._index[canonical] = len(self.variants)
            self.variants.append(Variant(value, canonical, mark))
        return self._index[canonical]

    def __getitem__(self, index: int) -> T:
        """Return the value at `index`."""
        return self.variants[index].value

    def __len__(self) -> int:
        """Return the number of distinct values."""
        return len(self.variants)


@dataclass(frozen=True)
class Pools:
    """The distinct variants of every section; a `Cell` holds an index into each."""

    attack: Pool[Plugin] = field(default_factory=Pool)
    attacker: Pool[Attacker] = field(default_factory=Pool)
    data: Pool[Plugin | None] = field(default_factory=Pool)
    defense: Pool[Protection] = field(default_factory=Pool)
    federation: Pool[FederationSpec | None] = field(default_factory=Pool)
    model: Pool[Plugin | None] = field(default_factory=Pool)
    observe: Pool[ObserveSpec] = field(default_factory=Pool)
    public: Pool[Plugin | None] = field(default_factory=Pool)
    recorded: Pool[Recorded | None] = field(default_factory=Pool)
    targets: Pool[int] = field(default_factory=Pool)
    threat_model: Pool[ThreatModel] = field(default_factory=Pool)

    def of(self, section: str) -> Pool[Any]:
        """Return the pool of a section by name."""
        pool: Pool[Any] = getattr(self, section)
        return pool

    def map(self, cell: Cell, change: Callable[[str, int], int]) -> Cell:
        """Return `cell` with every index replaced by `change(section, index)`."""
        return Cell(*(change(section, index) for section, index in zip(SECTIONS, cell, strict=True)))

    def spec(self, cell: Cell, seed: int) -> TrialSpec:
        """Return the trial of `cell` with `seed`."""
        plugin, noise_budget = self.defense[cell.defense]
        return TrialSpec(
            data=self.data[cell.data],
            model=self.model[cell.model],
            federation=self.federation[cell.federation],
            defense=plugin,
            noise_budget=noise_budget,
            threat_model=self.threat_model[cell.threat_model],
            attacker=self.attacker[cell.attacker],
            attack=self.attack[cell.attack],
            observe=self.observe[cell.observe],
            targets=self.targets[cell.targets],
            seed=seed,
            public=self.public[cell.public],
            recorded=self.recorded[cell.recorded],
        )


def canonical_of(value: Any) -> str:
    """Return the canonical JSON of any section's value, as it enters `TrialSpec.canonical`."""
    if isinstance(value, Protection):
        return f'{{"budget":{value.noise_budget!r},"plugin":{value.plugin.canonical}}}'
    if isinstance(value, str | int | None):
        return canonical_json(value)
    canonical: str = value.canonical
    return canonical


def view_of(value: Any) -> Any:
    """Return a section's value as plain JSON that patterns look into: a plug-in's name among its options."""
    if isinstance(value, Protection):
        return {**view_of(value.plugin), "noise_budget": value.noise_budget}
    if isinstance(value, Plugin):
        return {**value.config.model_dump(mode="json"), "name": value.name}
    if isinstance(value, Recorded):
        return {"file": value.file, "sha256": value.sha256}
    if isinstance(value, FederationSpec | ObserveSpec | ThreatModel):
        return value.model_dump(mode="json")
    return value


def views(pool: Pool[Any]) -> list[Any]:
    """Return the view of every variant of a pool."""
    return [view_of(variant.value) for variant in pool.variants]
