"""Conformance kits: what every attack and defense must do, as pytest classes to subclass.

    class TestMyAttack(AttackConformance):
        card = MY_CARD
        config = MyConfig(iterations=3)

The kits need no pytest themselves, only something that calls methods named `test_*`.
"""

from harness.testing.attacks import AttackConformance
from harness.testing.defenses import DefenseConformance
from harness.testing.problems import SmallProblem
from harness.testing.small_env import SmallEnv

__all__ = ["AttackConformance", "DefenseConformance", "SmallEnv", "SmallProblem"]
