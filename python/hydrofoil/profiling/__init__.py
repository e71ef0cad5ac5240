"""Profilers of a model and of a training step."""
