"""Data sets as their owners ship them: no cropping first, no index made by hand.

Each reader gives pairs of :class:`~siamcar_ros.training.Frame`; a :class:`Mixture` draws from
several by weight. A missing or broken file is named, counted, and another is drawn in its place.
"""

from .coco import Coco
from .imagenet import ImageNetDet, ImageNetVid
from .masked import Davis, YouTubeVos
from .mixture import DATASETS, Mixture, build_mixture, build_source
from .source import DataError, DataFault, Faults, Source
from .tracking import Got10k, LaSOT, SequenceFolder, TrackingNet
from .youtube_bb import YouTubeBB

__all__ = [
    "DATASETS",
    "Coco",
    "DataError",
    "DataFault",
    "Davis",
    "Faults",
    "Got10k",
    "ImageNetDet",
    "ImageNetVid",
    "LaSOT",
    "Mixture",
    "SequenceFolder",
    "Source",
    "TrackingNet",
    "YouTubeBB",
    "YouTubeVos",
    "build_mixture",
    "build_source",
]
