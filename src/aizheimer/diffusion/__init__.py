"""The mathematics of diffusion on plain tensors: noise, predictions and guidance."""

from aizheimer.diffusion.guidance import guide
from aizheimer.diffusion.noise import NoiseSchedule, from_scheduler
from aizheimer.diffusion.prediction import PredictionKind, to_epsilon, to_velocity, to_x0

__all__ = ["NoiseSchedule", "PredictionKind", "from_scheduler", "guide", "to_epsilon", "to_velocity", "to_x0"]
