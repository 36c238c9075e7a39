"""One module a backbone; each registers itself, and every module here is found by the registry."""
