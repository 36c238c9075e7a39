"""A car made of textured panels: a side view drawn out over its width."""

from __future__ import annotations

import numpy as np

from clip import textures
from clip.scene import Part, Points, Texture, Thing

HALF_WIDTH = 0.88  # meters
_SUN = np.array((-0.42, 0.76, -0.50))
_SQUARE = np.pi / 4 + np.pi / 2 * np.array((-1, 0, 1, 2))
_PANELS = ("front", "front", "hood", "glass", "roof", "glass", "back", "back")


def _across(along: float, up: float, left_end: float, right_end: float) -> list[Points]:
    return [np.array((along, up, left_end)), np.array((along, up, right_end))]


class Car:
    """A car of one color that can be put anywhere on the ground.

    Its own axes are along (to the front), up and across (to the right), in meters from the middle
    of its footprint.

    Args:
        rng: where its grain comes from.
        color: of the body, BGR.
        stripe: of the band along its sides, BGR.
    """

    def __init__(
        self, rng: np.random.Generator, color: textures.Color, stripe: textures.Color
    ) -> None:
        profile = textures.CAR_PROFILE
        faces: list[list[Points]] = []
        self._textures: list[Texture] = []
        for kind, first, second in zip(_PANELS, profile[:-1], profile[1:], strict=True):
            # behind the roof a panel's upper edge is its front one, and its right is the car's
            high, low, side = second, first, HALF_WIDTH
            if second[1] < first[1]:
                high, low, side = first, second, -HALF_WIDTH
            faces.append([*_across(*high, side, -side), *_across(*low, -side, side)])
            self._textures.append(Texture(textures.car_panel(rng, color, kind)))
        picture = textures.car_side(rng, color, stripe)
        ahead, top = textures.SIDE_SIZE[0] / 2, textures.SIDE_SIZE[1]
        for sign, view in ((1, picture), (-1, np.ascontiguousarray(picture[:, ::-1]))):
            ends = ((-ahead, top), (ahead, top), (ahead, 0.0), (-ahead, 0.0))
            faces.append([np.array((sign * x, y, sign * HALF_WIDTH)) for x, y in ends])
            self._textures.append(Texture(view))
        self._faces = np.array(faces)
        self._wheel = Texture(textures.wheel(rng))
        rim = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radius = textures.WHEEL_RADIUS
        self._outline = np.array(
            [
                (along, up, across)
                for across in (-HALF_WIDTH, HALF_WIDTH)
                for along, up in (
                    *profile,
                    *textures.SILL,
                    *(
                        (hub + radius * np.cos(angle), radius + radius * np.sin(angle))
                        for hub in textures.WHEELS
                        for angle in rim
                    ),
                )
            ]
        )

    def _wheels(self, driven: float) -> Points:
        """(4, 4, 3) corners of the wheels' pictures after so many meters."""
        radius = textures.WHEEL_RADIUS
        reach = np.sqrt(2) * radius
        corners = [
            [
                (hub + side * reach * np.sin(angle), radius + reach * np.cos(angle), across)
                for angle in _SQUARE + side * driven / radius
            ]
            for hub in textures.WHEELS
            for side, across in ((1, HALF_WIDTH + 0.01), (-1, -HALF_WIDTH - 0.01))
        ]
        return np.array(corners)

    def place(self, position: Points, heading: float, driven: float) -> tuple[Thing, Points]:
        """The car at a place, and the points of its outline.

        Args:
            position: (2,) meters X, Z of its middle on the ground.
            heading: radians, 0 along Z and positive towards X.
            driven: meters since the start, which turn the wheels.

        Returns:
            The thing to draw, and (N, 3) world points whose hull on the screen is the car's.
        """
        sine, cosine = np.sin(heading), np.cos(heading)
        axes = np.array(((sine, 0, cosine), (0, 1, 0), (cosine, 0, -sine)))
        middle = np.array((position[0], 0.0, position[1]))
        corners = np.concatenate([self._faces, self._wheels(driven)]) @ axes + middle
        across, down = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
        normals = np.cross(across, down)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        lights = 0.58 + 0.52 * np.maximum(normals @ _SUN, 0)
        pictures = [*self._textures, *[self._wheel] * 4]
        parts = [
            Part(face, texture, float(light), one_sided=True)
            for face, texture, light in zip(corners, pictures, lights, strict=True)
        ]
        return Thing(parts, middle), self._outline @ axes + middle


def shadow(texture: Texture, position: Points, heading: float) -> Part:
    """The soft shadow of a car at a place (see `Car.place`) on the ground."""
    forward = np.array((np.sin(heading), 0.0, np.cos(heading)))
    right = np.array((np.cos(heading), 0.0, -np.sin(heading)))
    middle = np.array((position[0] + 0.5, 0.01, position[1] - 0.1))
    corners = [
        middle + 3.5 * along * forward + 2.1 * across * right
        for along, across in ((1, -1), (1, 1), (-1, 1), (-1, -1))
    ]
    return Part(np.array(corners), texture)
