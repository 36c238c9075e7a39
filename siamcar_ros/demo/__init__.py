"""`make demo`: a tracker node follows a target in a video that another process publishes."""
