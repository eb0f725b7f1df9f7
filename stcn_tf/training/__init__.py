"""The train step, the loop around it, schedules, checkpoints and TensorBoard."""
