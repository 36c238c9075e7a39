"""One module per subcommand of `siamcar`: `HELP`, `add_arguments(parser)` and `run(args)`."""
