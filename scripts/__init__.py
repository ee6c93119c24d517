"""Chores of the project, run with `python -m scripts.NAME`."""
