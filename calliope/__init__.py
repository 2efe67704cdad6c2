"""Calliope: a self-hosted video-conference server that composes everybody into one picture."""

__version__ = "0.1.0"
