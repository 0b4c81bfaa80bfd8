"""The Plan: HOW a task is run, as a value. Imports no torch."""

from volano.plan.format import changes_text, knob_text, parse_bytes, parse_setting, status_text
from volano.plan.plan import SEMANTICS, Plan, Semantics, knobs_with, semantics_of, varies

__all__ = [
    "SEMANTICS",
    "Plan",
    "Semantics",
    "changes_text",
    "knob_text",
    "knobs_with",
    "parse_bytes",
    "parse_setting",
    "semantics_of",
    "status_text",
    "varies",
]
