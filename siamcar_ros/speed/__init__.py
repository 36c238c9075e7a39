"""Which backend is fastest: what `siamcar bench` measures."""
