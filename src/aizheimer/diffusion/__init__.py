"""The mathematics of diffusion on plain tensors: noise, predictions and guidance."""

from aizheimer.diffusion.flow import FlowSchedule, flow_schedule
from aizheimer.diffusion.guidance import guide
from aizheimer.diffusion.noise import NoiseSchedule, from_scheduler
from aizheimer.diffusion.prediction import PredictionKind, Schedule, to_epsilon, to_velocity, to_x0, training_target

__all__ = [
    "FlowSchedule",
    "NoiseSchedule",
    "PredictionKind",
    "Schedule",
    "flow_schedule",
    "from_scheduler",
    "guide",
    "to_epsilon",
    "to_velocity",
    "to_x0",
    "training_target",
]
