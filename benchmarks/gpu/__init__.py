"""`python -m benchmarks.gpu`: tests, tracking and training on a GPU in a few minutes."""
