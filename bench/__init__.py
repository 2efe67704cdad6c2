"""Benchmarks and what they are compared with; no part of the server."""
