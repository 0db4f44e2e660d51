"""The training loop every method shares: optimiser, schedules, guard, checkpoints and run folders."""
