"""Generator of films/car.mp4."""
