"""The demonstration: a clip with exact ground truth, frame sources, and a run of the node."""
