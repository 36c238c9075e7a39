"""Data sets in their owners' layouts, a module each; see `siamcar_ros.data.registry`."""
