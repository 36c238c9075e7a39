"""The backbones, a module each; the registry imports all of them."""
