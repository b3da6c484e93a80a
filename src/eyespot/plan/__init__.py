"""What a training will cost before it is paid for: operations, memory, storage, time."""

from eyespot.plan.estimate import Plan, StagePlan, make_plan
from eyespot.plan.hardware import HARDWARE, Hardware, find_hardware
from eyespot.plan.shapes import UnseenModelError
from eyespot.plan.table import show_plan

__all__ = [
    "HARDWARE",
    "Hardware",
    "Plan",
    "StagePlan",
    "UnseenModelError",
    "find_hardware",
    "make_plan",
    "show_plan",
]
