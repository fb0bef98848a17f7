"""From a threat model to the change of the model sent."""

from dataclasses import replace

import pytest
import torch

from fl.cards import ManipulationCard
from fl.errors import UnknownPluginError
from fl.manipulations import MANIPULATIONS, manipulation
from fl.seeds import Streams
from fl.specs import Config, NamedConfig, ThreatModel


class ShiftConfig(Config):
    by: float


def shift(config, state, streams):
    noise = torch.rand(1, generator=streams.torch("manipulation"))
    return replace(state, tensors={n: t + config.by + noise for n, t in state.tensors.items()})


@pytest.fixture
def shifting(monkeypatch, register):
    card = ManipulationCard(
        name="shift", version=1, summary="Adds.", config=ShiftConfig, implementation="none:none"
    )
    register(MANIPULATIONS, card)
    monkeypatch.setattr(MANIPULATIONS, "implementation", lambda name: shift)


def malicious(name, **config):
    return ThreatModel(behaviour="malicious", manipulation=NamedConfig(name=name, config=config))


def test_an_honest_server_changes_nothing():
    assert manipulation(ThreatModel(), Streams(0)) is None


def test_a_named_manipulation_changes_the_model_sent(shifting, make_federation):
    federation = make_federation(manipulation=manipulation(malicious("shift", by=2.0), Streams(4)))
    start = federation.initial()
    noise = torch.rand(1, generator=Streams(4).torch("manipulation"))
    sent = federation.sent(start).tensors

    assert all(torch.equal(sent[name], t + 2.0 + noise) for name, t in start.model.tensors.items())


def test_unknown_manipulations_and_wrong_configurations_are_refused(shifting):
    with pytest.raises(UnknownPluginError, match="Did you mean 'shift'"):
        manipulation(malicious("shif"), Streams(0))
    with pytest.raises(ValueError, match="by"):
        manipulation(malicious("shift"), Streams(0))
