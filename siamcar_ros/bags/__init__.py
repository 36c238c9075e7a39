"""ROS bags without ROS: reading, writing and replaying them."""
