"""A made-up chest and upper abdomen in patient space, the same for every scanner that images it.

Coordinates are LPS millimetres: x to the patient's left, y to the back, z to the head; the origin
is in the middle of the body. Nothing here knows of voxels: an image is this scene, asked at its
points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veloxseg.datasets.phantom_shapes import Array, Common, Ellipsoid, Shape, Slabs, Wall, Waves

AIR_HU = -1000.0
INFINITY = float("inf")


@dataclass(frozen=True, kw_only=True)
class Organ:
    """A shape of one tissue.

    Attributes:
        shape: Where it is; organs later in a scene replace earlier ones.
        hu: Its CT number in Hounsfield units.
        suv: Its PET uptake as standardised uptake value.
    """

    shape: Shape
    hu: float
    suv: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One patient.

    Attributes:
        organs: Healthy tissue, outermost first.
        lesions: What is to be segmented, over the organs.
        texture: Varies uptake and, a little, density within tissues.
    """

    organs: Sequence[Organ]
    lesions: Sequence[Organ]
    texture: Waves

    def hu(self, points_xyz: Array, *, edge_mm: float) -> Array:
        """CT numbers at points (3, N), edges ``edge_mm`` wide; returns (N,)."""
        values = np.full(points_xyz.shape[1], AIR_HU, np.float32)
        for organ in (*self.organs, *self.lesions):
            _paint(values, organ.hu, _cover(organ.shape.depth_mm(points_xyz), edge_mm))
        texture: Array = np.where(values > -200, 5 * self.texture.at(points_xyz), 0)
        return values + texture

    def suv(self, points_xyz: Array, *, edge_mm: float) -> Array:
        """Uptake at points (3, N) before any blur, edges ``edge_mm`` wide; returns (N,)."""
        values = np.zeros(points_xyz.shape[1], np.float32)
        for organ in (*self.organs, *self.lesions):
            _paint(values, organ.suv, _cover(organ.shape.depth_mm(points_xyz), edge_mm))
        values *= np.exp(np.float32(0.1) * self.texture.at(points_xyz))
        return values

    def lesion_mask(self, points_xyz: Array) -> NDArray[np.bool_]:
        """Which of the points (3, N) lie in a lesion; returns (N,)."""
        inside = np.zeros(points_xyz.shape[1], bool)
        for lesion in self.lesions:
            inside |= lesion.shape.depth_mm(points_xyz) > 0
        return inside


def random_patient(rng: np.random.Generator) -> Scene:
    """Draw one patient: anatomy, uptake and one to four lesions.

    Heart, kidneys and bowel may take up as much tracer as a lesion and are none: uptake alone does
    not tell, place and density do.
    """
    body = _body(rng)
    chest = _chest(rng)
    heart = _heart(rng)
    spine = _spine(rng)
    abdomen = _abdomen(rng)
    organs = [*body, *chest, *abdomen, *heart, *spine]
    obstacles = [organ.shape for organ in (*abdomen[1:], *heart, *spine)]
    return Scene(
        organs=organs,
        lesions=_lesions(rng, body[1].shape, obstacles),
        texture=Waves.random(rng, wavelength_mm=25),
    )


def _body(rng: np.random.Generator) -> list[Organ]:
    width, depth = rng.uniform(104, 114), rng.uniform(76, 84)
    fat = rng.uniform(8, 14)
    outline = _ellipsoid(rng, (0, 0, 0), (width, depth, INFINITY), exponent=2.4, jitter_mm=0)
    inside = (width - fat, depth - fat, INFINITY)
    return [
        Organ(shape=outline, hu=-100, suv=0.3),
        Organ(shape=_ellipsoid(rng, (0, 0, 0), inside, exponent=2.4, jitter_mm=0), hu=48, suv=0.7),
    ]


def _chest(rng: np.random.Generator) -> list[Organ]:
    cage = _ellipsoid(rng, (0, 0, 60), (92, 65, 170), exponent=2.4, jitter_mm=0)
    cavity = _ellipsoid(rng, (0, 0, 60), (86, 59, 170), exponent=2.4, jitter_mm=0)
    ribs = Slabs(period_mm=27, thickness_mm=12, phase_mm=rng.uniform(0, 27), slope=0.35)
    lung_hu, lung_suv = rng.uniform(-840, -760), rng.uniform(0.3, 0.5)
    lungs = [
        Common((_ellipsoid(rng, centre, semi_axes, exponent=2.3), cavity))
        for centre, semi_axes in (((-47, 0, 42), (38, 58, 76)), ((49, 2, 44), (37, 57, 80)))
    ]
    return [
        Organ(shape=cavity, hu=-70, suv=0.4),
        Organ(shape=Common((Wall(cage, 7), ribs)), hu=rng.uniform(400, 550), suv=0.9),
        *(Organ(shape=lung, hu=lung_hu, suv=lung_suv) for lung in lungs),
        Organ(shape=_ellipsoid(rng, (0, -6, 60), (21, 48, 80)), hu=25, suv=0.9),
        Organ(shape=_ellipsoid(rng, (0, -62, 45), (17, 6, 55)), hu=320, suv=0.8),
        Organ(shape=_ellipsoid(rng, (0, 6, 88), (8, 8, 36)), hu=-950, suv=0.2),
    ]


def _heart(rng: np.random.Generator) -> list[Organ]:
    outside = _ellipsoid(rng, (17, -20, 4), (38, 32, 35), jitter_mm=4)
    fasted = rng.random() < 0.3
    uptake = rng.uniform(1.8, 3.0) if fasted else rng.uniform(5, 10)
    return [
        Organ(shape=outside, hu=42, suv=1.7),
        Organ(shape=Wall(outside, 10), hu=55, suv=uptake),
    ]


def _spine(rng: np.random.Generator) -> list[Organ]:
    column = _ellipsoid(rng, (0, 38, 0), (19, 15, INFINITY), exponent=2.5, jitter_mm=0)
    bodies = Slabs(period_mm=25, thickness_mm=20, phase_mm=rng.uniform(0, 25))
    arch = _ellipsoid(rng, (0, 58, 0), (12, 10, INFINITY), jitter_mm=0)
    canal = _ellipsoid(rng, (0, 58, 0), (8, 7, INFINITY), jitter_mm=0)
    bone_hu = rng.uniform(450, 650)
    return [
        Organ(shape=column, hu=90, suv=0.8),
        Organ(shape=Common((column, bodies)), hu=220, suv=1.4),
        Organ(shape=Common((Wall(column, 3), bodies)), hu=bone_hu, suv=1.2),
        Organ(shape=Common((arch, bodies)), hu=bone_hu, suv=1.0),
        Organ(shape=canal, hu=25, suv=0.9),
        Organ(shape=_ellipsoid(rng, (15, 17, 0), (10, 10, INFINITY)), hu=42, suv=1.6),
    ]


def _abdomen(rng: np.random.Generator) -> list[Organ]:
    organs = [
        Organ(
            shape=_ellipsoid(rng, (-34, -4, -52), (56, 56, 46), exponent=2.2),
            hu=rng.uniform(52, 66),
            suv=rng.uniform(1.9, 2.7),
        ),
        Organ(shape=_ellipsoid(rng, (62, 26, -42), (20, 28, 32)), hu=50, suv=1.8),
        Organ(shape=_ellipsoid(rng, (44, -22, -52), (26, 28, 24)), hu=22, suv=1.3),
        Organ(shape=_ellipsoid(rng, (44, -36, -50), (15, 10, 14)), hu=-850, suv=0.2),
    ]
    renal = rng.uniform(4, 9)
    for side in (-1, 1):
        kidney = _ellipsoid(rng, (side * 44, 36, -76), (19, 16, 32))
        pelvis = _ellipsoid(rng, (side * 40, 34, -78), (8, 8, 16), jitter_mm=2)
        organs += [
            Organ(shape=kidney, hu=34, suv=2.5),
            Organ(shape=pelvis, hu=8, suv=renal),
        ]
    for _ in range(2):
        centre = (rng.uniform(15, 55), rng.uniform(-35, 0), rng.uniform(-90, -80))
        loop = _ellipsoid(rng, centre, (10, 10, 24), axes=_random_rotation(rng), jitter_mm=0)
        organs += [
            Organ(shape=loop, hu=35, suv=rng.uniform(3, 8)),
            Organ(shape=_ellipsoid(rng, centre, (5, 5, 5), jitter_mm=0), hu=-700, suv=1),
        ]
    return organs


# Where lesions grow: middle and reach in mm, and the CT numbers they have there.
_SITES: Sequence[tuple[tuple[float, float, float], tuple[float, float, float], float, float]] = (
    ((-52, 4, 45), (24, 42, 40), 20, 60),  # right lung
    ((54, 6, 52), (22, 40, 36), 20, 60),  # left lung
    ((0, -10, 62), (18, 36, 24), 35, 60),  # mediastinum
    ((-38, -4, -48), (40, 36, 28), 30, 50),  # liver
    ((0, -10, -66), (45, 34, 16), 30, 60),  # abdomen
    ((-92, 10, 30), (4, 24, 50), 35, 60),  # right chest wall
    ((92, 10, 30), (4, 24, 50), 35, 60),  # left chest wall
)
_DIAMETER_MM = (15.0, 35.0)
_HALF_HEIGHT_MM = 78.0


def _lesions(rng: np.random.Generator, body: Shape, obstacles: Sequence[Shape]) -> list[Organ]:
    lesions: list[Organ] = []
    for radius in rng.uniform(*_DIAMETER_MM, size=rng.integers(1, 5)) / 2:
        taken = [*obstacles, *(lesion.shape for lesion in lesions)]
        centre, hu = _free_place(rng, radius, body, taken)
        shape = Ellipsoid(
            centre=centre,
            semi_axes=_triple(radius * rng.uniform(0.85, 1.1, 3)),
            axes=_random_rotation(rng),
            border=Waves.random(rng, wavelength_mm=2.5 * radius),
            irregularity=0.08,
        )
        lesions.append(Organ(shape=shape, hu=hu, suv=rng.uniform(4, 12)))
    return lesions


def _free_place(
    rng: np.random.Generator, radius_mm: float, body: Shape, taken: Sequence[Shape]
) -> tuple[tuple[float, float, float], float]:
    """Draw a centre within the scanned body and clear of other shapes, and the CT number there."""
    while True:
        middle, reach, lowest_hu, highest_hu = _SITES[int(rng.integers(len(_SITES)))]
        centre = np.asarray(middle) + np.asarray(reach) * rng.uniform(-1, 1, 3)
        point = centre[:, None].astype(np.float32)
        clear = all(float(shape.depth_mm(point)[0]) < -radius_mm - 2 for shape in taken)
        embedded = float(body.depth_mm(point)[0]) > radius_mm / 2
        if clear and embedded and abs(centre[2]) < _HALF_HEIGHT_MM - radius_mm:
            return _triple(centre), rng.uniform(lowest_hu, highest_hu)


def _ellipsoid(
    rng: np.random.Generator,
    centre: tuple[float, float, float],
    semi_axes: tuple[float, float, float],
    *,
    exponent: float = 2.0,
    axes: Array | None = None,
    jitter_mm: float = 3.0,
) -> Ellipsoid:
    """Give an organ of about this place and size."""
    moved = np.asarray(centre) + rng.uniform(-jitter_mm, jitter_mm, 3)
    resized = np.asarray(semi_axes) * rng.uniform(1 - jitter_mm / 40, 1 + jitter_mm / 40, 3)
    return Ellipsoid(
        centre=_triple(moved),
        semi_axes=_triple(resized),
        axes=np.eye(3, dtype=np.float32) if axes is None else axes,
        exponent=exponent,
    )


def _random_rotation(rng: np.random.Generator) -> Array:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return rotation.astype(np.float32)


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _cover(depth_mm: Array, edge_mm: float) -> Array:
    cover: Array = np.clip(depth_mm / np.float32(edge_mm) + np.float32(0.5), 0, 1)
    return cover


def _paint(values: Array, value: float, cover: Array) -> None:
    values += cover * (np.float32(value) - values)
