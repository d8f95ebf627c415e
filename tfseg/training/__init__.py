"""Training: stages, the step of an update, checkpoints and what is shown meanwhile."""
