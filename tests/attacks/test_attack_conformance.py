from attacks.catalog import (
    DLG,
    IDLG,
    INVERTING_GRADIENTS,
    MEAN_IMAGE,
    RANDOM_GUESS,
    DlgConfig,
    IdlgConfig,
    InvertingGradientsConfig,
)
from harness.testing import AttackConformance, SmallProblem


class TestDlg(AttackConformance):
    card = DLG
    config = DlgConfig(iterations=2, restarts=2)


class TestIdlg(AttackConformance):
    card = IDLG
    config = IdlgConfig(iterations=2)


class TestInvertingGradients(AttackConformance):
    card = INVERTING_GRADIENTS
    config = InvertingGradientsConfig(iterations=3, restarts=2)


class TestInvertingGradientsFromTheMean(AttackConformance):
    card = INVERTING_GRADIENTS
    config = InvertingGradientsConfig(iterations=3, init="mean", cost="l2")
    deterministic = True


class TestUnrolledInvertingGradients(AttackConformance):
    card = INVERTING_GRADIENTS
    config = InvertingGradientsConfig(iterations=3, unroll=True)

    def problem(self, *, channels=1, n=1):
        return SmallProblem(channels=channels, n=n, kind="delta", steps=2)


class TestRandomGuess(AttackConformance):
    card = RANDOM_GUESS


class TestMeanImage(AttackConformance):
    card = MEAN_IMAGE
    deterministic = True
