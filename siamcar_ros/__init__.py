"""SiamCAR visual object tracking: network, tracker, training, evaluation and a ROS 2 node.

The rooms are entered by name: `siamcar_ros.model`, `.tracking`, `.runtime`, `.training`,
`.evaluation` and `.ros`; only the last needs ROS. Importing this package alone is cheap.
"""

__version__ = "0.1.0"
