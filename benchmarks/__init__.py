"""Comparisons with other trackers, with the published code, and of GPUs; see README.md here.

Not installed: run `python -m benchmarks` and `python -m benchmarks.gpu` in a checkout.
"""
