"""Reports: trackers side by side as one HTML page, pictures and JSON."""

from siamcar_ros.evaluation.report.page import write_report

__all__ = ["write_report"]
