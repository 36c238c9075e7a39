"""Pictures made from noise and simple drawing: ground, sky line, walls, trees, posts and cars."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from clip.scene import Image

Color = tuple[float, float, float]  # BGR
Plane = npt.NDArray[np.float32]

# Side view of a car, meters along its length and above the ground: the roof line, front to back.
CAR_PROFILE = (
    (2.10, 0.32),
    (2.12, 0.66),
    (1.98, 0.80),
    (0.95, 0.98),
    (0.30, 1.46),
    (-1.05, 1.50),
    (-1.75, 1.02),
    (-2.08, 0.96),
    (-2.12, 0.36),
)
SILL = ((-1.9, 0.24), (1.9, 0.24))  # the lower edge
WHEELS = (1.32, -1.30)  # meters along the length
WHEEL_RADIUS = 0.33
SIDE_SIZE = (4.4, 1.6)  # meters that the side picture covers


def noise(shape: tuple[int, int], rng: np.random.Generator, octaves: int, coarsest: int) -> Plane:
    """Multi-octave value noise (H, W) in [-1, 1]; the first octave has `coarsest` cells a side."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    weight = 1.0
    for octave in range(octaves):
        cells = min(coarsest * 2**octave, max(height, width))
        rows = max(2, cells * height // max(height, width))
        columns = max(2, cells * width // max(height, width))
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        weight *= 0.6
    return np.asarray(total / np.abs(total).max(), np.float32)


def paint(color: Color, grain: Plane, amount: float) -> Image:
    """A BGR picture of one color, made lighter and darker by the grain."""
    shade = 1 + amount * grain[..., None]
    return np.clip(np.asarray(color, np.float32) * shade, 0, 255).astype(np.uint8)


def mix(first: Image, second: Image, share: Plane) -> Image:
    """`first` where share is 0, `second` where it is 1."""
    weight = np.clip(share, 0, 1)[..., None]
    return (first * (1 - weight) + second * weight).astype(np.uint8)


def ground(rng: np.random.Generator, side: int = 2304, meters: float = 96.0) -> Image:
    """An asphalt yard with stains, cracks, seams and bay lines between lawns, seen from above."""
    fine = noise((side, side), rng, 4, side // 8)
    coarse = noise((side, side), rng, 5, 9)
    asphalt = paint((112, 112, 110), 0.6 * fine + 0.7 * coarse, 0.34)
    lawn = paint((52, 104, 84), 0.7 * fine + 0.5 * noise((side, side), rng, 5, 24), 0.55)
    edge = noise((side, side), rng, 4, 16)
    across = np.abs(np.linspace(-1, 1, side, dtype=np.float32))[None] + 0.05 * edge
    picture = mix(asphalt, lawn, (across - 0.62) * 40)
    scale = side / meters
    for _ in range(60):  # stains and mended patches
        center = rng.uniform(0.2 * side, 0.8 * side, 2).astype(int)
        axes = rng.uniform(0.4, 2.2, 2) * scale
        shade = float(rng.uniform(0.72, 1.22))
        mask = np.zeros((side, side), np.uint8)
        size = tuple(int(v) for v in axes)
        if rng.random() < 0.5:
            cv2.ellipse(mask, center.tolist(), size, float(rng.uniform(0, 180)), 0, 360, 255, -1)
        else:
            corner = (center + size).tolist()
            cv2.rectangle(mask, center.tolist(), corner, 255, -1)
        x, y, w, h = cv2.boundingRect(mask)
        area = picture[y : y + h, x : x + w]
        inside = mask[y : y + h, x : x + w, None] > 0
        np.copyto(area, np.clip(area * shade, 0, 255).astype(np.uint8), where=inside)
    for _ in range(26):  # cracks
        points = np.cumsum(rng.normal(0, 0.8 * scale, (9, 2)), 0) + rng.uniform(0.2, 0.8, 2) * side
        cv2.polylines(picture, [points.astype(np.int32)], False, (58, 58, 60), 2, cv2.LINE_AA)
    line: Color = (205, 208, 210)
    for row in np.arange(6.0, meters - 6, 12.0):  # bays beside the lane
        y = int(row * scale)
        for column in np.arange(-7.5, 7.6, 2.5):
            x = int((meters / 2 + column * 2) * scale)
            cv2.line(picture, (x, y), (x, y + int(4.5 * scale)), line, 3, cv2.LINE_AA)
        half = int(15 * scale)
        cv2.line(picture, (side // 2 - half, y), (side // 2 + half, y), line, 3, cv2.LINE_AA)
    return picture


def gravel(rng: np.random.Generator, picture: Image, scale: int) -> Image:
    """The picture `scale` times larger, with the fine grain that only shows from close by."""
    large = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    height, width = large.shape[:2]
    speckle = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 0.9)
    shade = 1 + 0.20 * speckle + 0.06 * noise((height, width), rng, 3, width // 12)
    return np.clip(large * shade[..., None], 0, 255).astype(np.uint8)


def skyline(rng: np.random.Generator, width: int = 2048, height: int = 512) -> Image:
    """Sky with clouds, far hills and a row of far houses; the ground begins at the lowest tenth."""
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    blue = np.array((214, 168, 120), np.float32) * (1 - rows) + np.array((232, 222, 210)) * rows
    sky = np.repeat(blue[:, None], width, 1).reshape(height, width, 3).astype(np.uint8)
    clouds = noise((height, width), rng, 6, 12)
    picture = mix(sky, np.full_like(sky, 244), (clouds - 0.05) * 1.6)
    ridge = height * (0.66 + 0.07 * noise((8, width), rng, 6, 8)[0])
    hills = paint((118, 132, 112), noise((height, width), rng, 6, 40), 0.3)
    below = (np.arange(height, dtype=np.float32)[:, None] - ridge[None]) / 3
    picture = mix(picture, hills, below)
    foot = int(height * 0.9)
    x = 0
    while x < width:
        wide, tall = int(rng.integers(36, 110)), int(rng.integers(24, 105))
        color = rng.uniform(90, 190) + rng.normal(0, 10, 3)
        house = wall(rng, (color[0], color[1], color[2]), tall, wide, floors=tall // 14 + 1)
        picture[foot - tall : foot, x : x + wide] = house[:, : width - x]
        x += wide + int(rng.integers(0, 60))
    picture[foot:] = paint((84, 112, 100), noise((height - foot, width), rng, 4, 60), 0.2)
    return picture


def wall(rng: np.random.Generator, color: Color, height: int, width: int, floors: int) -> Image:
    """A house front with rows of windows."""
    picture = paint(color, noise((height, width), rng, 5, 8), 0.16)
    storey = height / floors
    columns = max(2, int(width / (storey * 0.8)))
    bay = width / columns
    for floor in range(floors):
        for column in range(columns):
            x1, y1 = int((column + 0.24) * bay), int((floor + 0.2) * storey)
            x2, y2 = int((column + 0.76) * bay), int((floor + 0.72) * storey)
            glass = float(rng.uniform(30, 120))
            cv2.rectangle(picture, (x1, y1), (x2, y2), (glass + 18, glass + 6, glass), -1)
            frame = tuple(min(255.0, 1.25 * v) for v in color)
            cv2.rectangle(picture, (x1, y1), (x2, y2), frame, max(1, int(bay / 24)))
    return picture


def foliage(rng: np.random.Generator, height: int = 320, width: int = 288) -> Image:
    """A bushy crown with holes, BGRA."""
    picture = np.zeros((height, width, 4), np.uint8)
    for layer in range(3):
        for _ in range(420):
            angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
            x = width / 2 + 0.42 * width * radius * np.cos(angle)
            y = height / 2 + 0.42 * height * radius * np.sin(angle)
            lit = 0.45 + 0.2 * layer + 0.35 * (1 - y / height) + rng.normal(0, 0.12)
            color = (34 * lit, 96 * lit, 66 * lit, 255.0)
            size = (int(rng.integers(4, 13)), int(rng.integers(3, 7)))
            turn = float(rng.uniform(0, 180))
            cv2.ellipse(picture, (int(x), int(y)), size, turn, 0, 360, color, -1, cv2.LINE_AA)
    return picture


def post(rng: np.random.Generator, height: int = 512, width: int = 32) -> Image:
    """A round metal post, lit from the left, with a band and a notice."""
    across = np.linspace(-1, 1, width, dtype=np.float32)[None]
    grain = np.repeat(0.55 - (across + 0.35) ** 2, height, 0) + 0.15 * noise(
        (height, width), rng, 4, 40
    )
    picture = paint((104, 112, 108), grain, 0.7)
    top = int(height * 0.55)
    picture[top : top + 46] = paint((190, 150, 96), grain[:46], 0.4)
    return picture


def car_side(rng: np.random.Generator, color: Color, stripe: Color) -> Image:
    """The side of a car, front to the right, BGRA; the wheels are parts of their own."""
    per_metre = 128
    width, height = (int(v * per_metre) for v in SIDE_SIZE)

    def spot(x: float, y: float) -> tuple[int, int]:
        return round((x + SIDE_SIZE[0] / 2) * per_metre), round(height - y * per_metre)

    def polygon(*corners: tuple[float, float]) -> npt.NDArray[np.int32]:
        return np.array([spot(*corner) for corner in corners], np.int32)

    rows = np.linspace(1, -1, height, dtype=np.float32)[:, None]
    grain = 0.5 * rows + 0.25 * np.cos(rows * 9) + 0.3 * noise((height, width), rng, 5, 10)
    body = paint(color, grain, 0.36)
    cv2.fillPoly(body, [polygon((2.2, 0.62), (2.2, 0.5), (-2.2, 0.5), (-2.2, 0.62))], stripe)
    cv2.fillPoly(body, [polygon((2.2, 0.4), (2.2, 0.2), (-2.2, 0.2), (-2.2, 0.4))], (38, 38, 40))
    glass = (62, 54, 46)
    front = polygon((0.80, 1.00), (0.24, 1.38), (-0.30, 1.40), (-0.30, 1.00))
    back = polygon((-0.40, 1.00), (-0.40, 1.40), (-1.04, 1.40), (-1.55, 1.02))
    for window in (front, back):
        cv2.fillPoly(body, [window], glass)
        low, high = window.max(0), window.min(0)
        cv2.line(body, (high[0] + 14, low[1] - 4), (high[0] + 44, high[1] + 6), (120, 116, 110), 7)
        cv2.polylines(body, [window], True, (24, 24, 26), 3, cv2.LINE_AA)
    seam = tuple(0.45 * v for v in color)
    for x in (0.86, -0.35, -1.28):
        cv2.line(body, spot(x, 0.98), spot(x - 0.06, 0.42), seam, 2, cv2.LINE_AA)
    for x in (-0.15, -1.08):
        cv2.line(body, spot(x, 0.86), spot(x - 0.2, 0.86), (28, 28, 30), 5)
    cv2.ellipse(body, spot(1.86, 0.76), (26, 9), -8, 0, 360, (225, 232, 236), -1, cv2.LINE_AA)
    cv2.ellipse(body, spot(-1.98, 0.86), (18, 13), 0, 0, 360, (40, 36, 190), -1, cv2.LINE_AA)
    arch = int(0.40 * per_metre)
    for x in WHEELS:
        cv2.circle(body, spot(x, WHEEL_RADIUS), arch, (20, 20, 22), -1, cv2.LINE_AA)
    alpha = np.zeros((height, width), np.uint8)
    outline = polygon(*CAR_PROFILE, *SILL)
    cv2.fillPoly(alpha, [outline], 255, cv2.LINE_AA)
    return np.dstack([body, alpha])


def car_panel(rng: np.random.Generator, color: Color, kind: str) -> Image:
    """One panel across a car: "front", "hood", "glass", "roof" or "back"; its top edge is up."""
    grain = noise((128, 160), rng, 5, 6)
    if kind == "glass":
        sky = np.linspace(0.8, -0.8, 128, dtype=np.float32)[:, None]
        picture = paint((74, 66, 56), grain + sky, 0.5)
        cv2.rectangle(picture, (0, 0), (159, 127), (26, 26, 28), 8)
        return picture
    picture = paint(color, grain, 0.2)
    if kind == "roof":
        for x in (26, 134):
            cv2.line(picture, (x, 8), (x, 120), (48, 48, 50), 7)
        cv2.rectangle(picture, (52, 34), (108, 92), (196, 202, 206), -1)
        cv2.rectangle(picture, (52, 34), (108, 92), (70, 72, 74), 3)
    elif kind == "hood":
        for x in (50, 110):
            cv2.line(picture, (x, 4), (80 + (x - 80) * 2 // 3, 124), tuple(0.6 * v for v in color))
    else:
        light: Color = (228, 236, 240) if kind == "front" else (38, 34, 196)
        cv2.rectangle(picture, (0, 84), (159, 127), (38, 38, 40), -1)
        cv2.rectangle(picture, (52, 52), (108, 74), (214, 218, 220), -1)
        cv2.rectangle(picture, (48, 24), (112, 44), (30, 30, 32), -1)
        for x in (6, 122):
            cv2.rectangle(picture, (x, 22), (x + 32, 48), light, -1)
    return picture


def wheel(rng: np.random.Generator, side: int = 96) -> Image:
    """A wheel with five spokes, BGRA."""
    middle, radius = (side // 2, side // 2), side // 2 - 2
    picture = paint((34, 34, 36), noise((side, side), rng, 4, 8), 0.3)
    cv2.circle(picture, middle, int(radius * 0.68), (60, 60, 62), -1, cv2.LINE_AA)
    for spoke in range(5):
        angle = 2 * np.pi * spoke / 5
        tip = (
            int(middle[0] + 0.62 * radius * np.cos(angle)),
            int(middle[1] + 0.62 * radius * np.sin(angle)),
        )
        cv2.line(picture, middle, tip, (196, 198, 200), 8, cv2.LINE_AA)
    cv2.circle(picture, middle, int(radius * 0.68), (176, 178, 180), 3, cv2.LINE_AA)
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, middle, radius, 255, -1, cv2.LINE_AA)
    return np.dstack([picture, alpha])
