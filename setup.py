"""Adds to pyproject.toml what it cannot say: which folders travel inside the wheel.

They live at the repository's root, where ROS tools and people look for them, and are installed as
`siamcar_ros/_data/`; `siamcar_ros.resources` finds them in either place.
"""

from setuptools import find_packages, setup

DATA = ("config", "films", "models", "msg")

setup(
    packages=[
        *find_packages(include=["siamcar_ros", "siamcar_ros.*"]),
        *(f"siamcar_ros._data.{folder}" for folder in DATA),
    ],
    package_dir={f"siamcar_ros._data.{folder}": folder for folder in DATA},
    package_data={
        "siamcar_ros.evaluation.report": ["*.jinja"],
        "siamcar_ros.ros.console": ["page/*"],
        **{f"siamcar_ros._data.{folder}": ["*", "**/*"] for folder in DATA},
    },
)
