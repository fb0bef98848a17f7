from defenses.catalog import (
    CHAIN,
    CLIPPING,
    GAUSSIAN,
    NONE,
    PRUNING,
    ChainConfig,
    ClippingConfig,
    GaussianConfig,
    PruningConfig,
)
from harness.testing import DefenseConformance


class TestNone(DefenseConformance):
    card = NONE


class TestGaussian(DefenseConformance):
    card = GAUSSIAN
    random = True
    mirror_is_exact = False


class TestRelativeGaussian(TestGaussian):
    config = GaussianConfig(sigma=0.1, scale="relative")


class TestClipping(DefenseConformance):
    card = CLIPPING


class TestClippingAboveTheNorm(DefenseConformance):
    card = CLIPPING
    config = ClippingConfig(bound=1e4)


class TestPruning(DefenseConformance):
    card = PRUNING


class TestSignlessPruning(DefenseConformance):
    card = PRUNING
    config = PruningConfig(ratio=0.2, variant="as_released")


class TestNoisyChain(DefenseConformance):
    card = CHAIN
    config = ChainConfig.model_validate(
        {"links": [{"name": "clipping"}, {"name": "gaussian", "config": {"sigma": 1e-3}}]}
    )
    random = True
    mirror_is_exact = False


class TestDeterministicChain(DefenseConformance):
    card = CHAIN
    config = ChainConfig.model_validate({"links": [{"name": "pruning"}, {"name": "clipping"}]})
