import functools

import torch

from defenses.cards_dependence import (
    BIDO,
    MID_DEPENDENCE,
    MID_VIB,
    BidoConfig,
    MidDependenceConfig,
    MidVibConfig,
)
from defenses.cards_representation import PRECODE, SOTERIA, PrecodeConfig, SoteriaConfig
from defenses.cards_shadowdef import GENERATOR, SHADOWDEF, ShadowDefConfig
from defenses.catalog import (
    CARDS,
    CHAIN,
    CLIPPING,
    FIXED_STEP,
    GAUSSIAN,
    INPUT_NOISE,
    LABEL_SMOOTHING,
    LAPLACE,
    MIXUP,
    NONE,
    PRUNING,
    QUANTIZATION,
    SIGN,
    ChainConfig,
    ClippingConfig,
    GaussianConfig,
    InputNoiseConfig,
    LabelSmoothingConfig,
    LaplaceConfig,
    PruningConfig,
    QuantizationConfig,
    SignConfig,
)
from fl.generators import stage
from fl.generators.config import GeneratorConfig
from fl.seeds import Streams
from fl.stage_context import StageContext
from fl.types import Artifact
from harness.testing import DefenseConformance, SmallProblem


class TestNone(DefenseConformance):
    card = NONE


class TestGaussian(DefenseConformance):
    card = GAUSSIAN
    random = True
    mirror_is_exact = False


class TestRelativeGaussian(TestGaussian):
    config = GaussianConfig(sigma=0.1, scale="relative")


class TestLaplace(DefenseConformance):
    card = LAPLACE
    random = True
    mirror_is_exact = False


class TestRelativeLaplace(TestLaplace):
    config = LaplaceConfig(b=0.1, scale="relative")


class TestClipping(DefenseConformance):
    card = CLIPPING


class TestClippingAboveTheNorm(DefenseConformance):
    card = CLIPPING
    config = ClippingConfig(bound=1e4)


class TestClippingPerTensor(DefenseConformance):
    card = CLIPPING
    config = ClippingConfig(bound=0.5, scope="per_tensor")


class TestPruning(DefenseConformance):
    card = PRUNING


class TestGlobalPruning(DefenseConformance):
    card = PRUNING
    config = PruningConfig(ratio=0.5, scope="global")


class TestSignlessPruning(DefenseConformance):
    card = PRUNING
    config = PruningConfig(ratio=0.2, variant="as_released")
    monotone = False  # a pruned entry is nearer to the clean one than one with the wrong sign


class TestQuantization(DefenseConformance):
    card = QUANTIZATION


class TestGlobalQuantization(DefenseConformance):
    card = QUANTIZATION
    config = QuantizationConfig(scope="global")


class TestStochasticQuantization(DefenseConformance):
    card = QUANTIZATION
    config = QuantizationConfig(rounding="stochastic")
    random = True
    mirror_is_exact = False


class TestFixedStep(DefenseConformance):
    card = FIXED_STEP


class TestSign(DefenseConformance):
    card = SIGN


class TestScaledSign(DefenseConformance):
    card = SIGN
    config = SignConfig(magnitude="mean")


class TestInputNoise(DefenseConformance):
    card = INPUT_NOISE
    random = True


class TestUnclampedInputNoise(TestInputNoise):
    config = InputNoiseConfig(clamp=False)


class TestLabelSmoothing(DefenseConformance):
    card = LABEL_SMOOTHING


class TestNegativeLabelSmoothing(DefenseConformance):
    card = LABEL_SMOOTHING
    config = LabelSmoothingConfig(epsilon=-0.1)


class TestMixup(DefenseConformance):
    card = MIXUP


class TestSoteria(DefenseConformance):
    card = SOTERIA
    mirror_is_exact = False  # its mirror is that of the other variant


class TestSoteriaOfGgl(DefenseConformance):
    card = SOTERIA
    config = SoteriaConfig(variant="ggl", percent=50)


class TestPrecode(DefenseConformance):
    card = PRECODE
    config = PrecodeConfig(bottleneck=16)
    random = True


class TestNoisyPrecode(TestPrecode):
    """A wrapper within a chain."""

    card = CHAIN
    config = ChainConfig.model_validate(
        {"links": [{"name": "precode", "config": {"bottleneck": 8}}, {"name": "gaussian"}]}
    )
    mirror_is_exact = False


class TestBido(DefenseConformance):
    card = BIDO


class TestUnbiasedBido(DefenseConformance):
    card = BIDO
    config = BidoConfig(estimator="unbiased", kernel="linear")


class TestMidDependence(DefenseConformance):
    card = MID_DEPENDENCE


class TestMidDependenceOfHsic(DefenseConformance):
    card = MID_DEPENDENCE
    config = MidDependenceConfig(measure="hsic", logit_kernel="gaussian")


class TestMidVib(DefenseConformance):
    card = MID_VIB
    config = MidVibConfig(bottleneck=16)
    random = True


@functools.cache
def shadow_generator() -> Artifact:
    small = SmallProblem()
    config = GeneratorConfig(latent=8, width=4, mapping_layers=2, steps=60, batch_size=8)
    context = StageContext(
        streams=Streams(0),
        device=torch.device("cpu"),
        public=small.public,
        build=small.env().build,
        progress=lambda share, word: None,
    )
    return stage.train({"generator": config.resolved(), "image": list(small.image.shape[:2])}, {}, context)


class TestShadowDef(DefenseConformance):
    card = SHADOWDEF
    config = ShadowDefConfig(latent_steps=40, latent_lr=0.05, shadow_steps=2)

    def artifacts(self):
        return {GENERATOR: shadow_generator()}


class TestShadowDefAsReleased(TestShadowDef):
    config = ShadowDefConfig(variant="as_released", shadow_steps=2)


class TestPermutedShadowDef(TestShadowDef):
    config = ShadowDefConfig(latent_steps=40, latent_lr=0.05, shadow_steps=2, placement="permuted")
    random = True


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


class TestCompressingChain(DefenseConformance):
    card = CHAIN
    config = ChainConfig.model_validate({"links": [{"name": "pruning"}, {"name": "quantization"}]})


def test_every_card_is_tested():
    tested = {kit.card.name for kit in globals().values() if isinstance(kit, type) and hasattr(kit, "card")}
    assert tested == {card.name for card in CARDS}
