"""SiamCAR visual object tracking: network, tracker, training, evaluation and a ROS 2 node.

Import its subpackages by name: `siamcar_ros.model`, `.tracking`, `.runtime`, `.training`,
`.evaluation` and `.ros`; only the last needs ROS. Importing this package alone is cheap.
"""

from pkgutil import extend_path

# In a checkout or after `pip install`, the generated siamcar_ros.msg, .srv and .action still lie in
# the colcon install folder, further along the path.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
