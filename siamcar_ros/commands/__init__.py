"""One module per subcommand of `siamcar`: `add_arguments(parser)` and `run(args)`."""
