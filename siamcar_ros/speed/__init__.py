"""How fast things are: several contestants measured in turn in one run, for `siamcar bench`."""
