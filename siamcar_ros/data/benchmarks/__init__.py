"""Readers of benchmarks as their owners ship them."""
