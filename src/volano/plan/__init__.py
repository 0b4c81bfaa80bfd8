"""HOW a task is run, as a value. Imports no torch."""

from volano.plan.plan import SEMANTICS, Plan, Semantics, semantics_of

__all__ = ["SEMANTICS", "Plan", "Semantics", "semantics_of"]
