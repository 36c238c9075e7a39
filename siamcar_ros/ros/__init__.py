"""The ROS 2 node. The only room that imports rclpy."""
