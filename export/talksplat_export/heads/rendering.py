"""Pictures of heads: a small deferred renderer in numpy over the mesh rasterizer.

Light, shadow and reflection are worked out in linear colour at 2×2 samples per pixel and averaged
there; sRGB comes last. The lights stand still in head space, as the head does: its pose is in the
camera. Same input, same picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat.errors import InputError
from talksplat.mesh import interpolate, rasterize_mesh
from talksplat_export.heads.model import (
    INSIDE_MOUTH_REGIONS,
    FloatArray,
    HeadModel,
    Region,
)

Array = NDArray[np.float64]
IdentityT = TypeVar("IdentityT")
SUPERSAMPLING = 2


def _unit(*xyz: float) -> FloatArray:
    v = np.array(xyz, np.float32)
    return v / np.linalg.norm(v)


@dataclass(frozen=True)
class Light:
    direction: FloatArray  # towards the light
    color: FloatArray  # linear


KEY = Light(_unit(-0.62, 0.62, 0.72), np.array((1.40, 1.31, 1.20), np.float32))
FILL = Light(_unit(0.85, 0.10, 0.62), np.array((0.26, 0.31, 0.40), np.float32))
RIM = Light(_unit(0.62, 0.45, -0.72), np.array((0.95, 1.00, 1.15), np.float32))
SKY = np.array((0.36, 0.39, 0.44), np.float32)
GROUND = np.array((0.19, 0.155, 0.135), np.float32)


@dataclass(frozen=True)
class Material:
    """How a region answers light: ``wrap`` is how far light bleeds past the terminator (RGB)."""

    wrap: tuple[float, float, float] = (0.0, 0.0, 0.0)
    specular: float = 0.0
    exponent: float = 20.0
    rim: float = 0.6


_SKIN = Material(wrap=(0.42, 0.22, 0.15), specular=0.11, exponent=22, rim=0.55)
MATERIALS: dict[Region, Material] = {
    Region.BACKGROUND: Material(),
    Region.SKIN: _SKIN,
    Region.NECK: Material(wrap=_SKIN.wrap, specular=0.06, exponent=18, rim=0.5),
    Region.LIPS: Material(wrap=(0.35, 0.15, 0.12), specular=0.30, exponent=48, rim=0.2),
    Region.EYEBALLS: Material(wrap=(0.35, 0.30, 0.28), specular=1.6, exponent=420, rim=0.0),
    Region.EYELASHES: Material(specular=0.02, rim=0.0),
    Region.TEETH: Material(wrap=(0.4, 0.35, 0.3), specular=0.30, exponent=80, rim=0.0),
    Region.TONGUE: Material(wrap=(0.4, 0.2, 0.15), specular=0.20, exponent=40, rim=0.0),
    Region.MOUTH_INTERIOR: Material(wrap=(0.3, 0.1, 0.1), specular=0.06, exponent=30, rim=0.0),
    Region.HAIR: Material(wrap=(0.25, 0.22, 0.20), specular=0.0, rim=0.55),
    Region.CLOTHES: Material(wrap=(0.12, 0.12, 0.12), specular=0.02, exponent=10, rim=0.3),
}


def _table(field: str) -> FloatArray:
    return np.array([getattr(MATERIALS[region], field) for region in Region], np.float32)


WRAP, SPECULAR, EXPONENT, RIM_SHARE = map(_table, ("wrap", "specular", "exponent", "rim"))


@dataclass(frozen=True)
class Rendering:
    """``rgba`` [H,W,4] sRGB 0..1 with straight alpha, ``regions`` [H,W] uint8 of
    :class:`Region`, ``depth`` [H,W] along the camera's axis in metres, infinity where empty."""

    rgba: FloatArray
    regions: NDArray[np.uint8]
    depth: FloatArray

    def over(self, background: ArrayLike) -> FloatArray:
        """[H,W,3] over a background that broadcasts to it, sRGB 0..1."""
        alpha = self.rgba[..., 3:]
        return self.rgba[..., :3] * alpha + np.asarray(background, np.float32) * (1.0 - alpha)


def to_linear(srgb: ArrayLike) -> FloatArray:
    """sRGB 0..1 to linear colour (IEC 61966-2-1)."""
    c = np.asarray(srgb, np.float32)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: ArrayLike) -> FloatArray:
    """Linear colour 0..1 to sRGB (IEC 61966-2-1)."""
    c = np.clip(np.asarray(linear, np.float32), 0.0, 1.0)
    return np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055).astype(np.float32)


def vertex_normals(vertices: FloatArray, faces: NDArray[np.int32]) -> FloatArray:
    """[V,3] unit normals, faces weighted by their area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    corner = faces.ravel(order="F")
    spread = np.concatenate([area] * 3)
    count = len(vertices)
    normals = np.stack([np.bincount(corner, spread[:, k], count) for k in range(3)], -1)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.asarray(normals / np.maximum(length, 1e-20), np.float32)


def _light_frame(direction: FloatArray) -> FloatArray:
    """Rows: right, down and away from a distant light."""
    away = -direction
    right = np.cross(away, (0.0, 1.0, 0.0))
    if np.linalg.norm(right) < 1e-3:
        right = np.cross(away, (0.0, 0.0, 1.0))
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(away, right), away]).astype(np.float32)


def light_visibility(
    vertices: FloatArray,
    faces: NDArray[np.int32],
    normals: FloatArray,
    direction: FloatArray,
    *,
    size: int,
    softness: int,
    bias: float = 0.0026,
) -> FloatArray:
    """[V] share 0..1 of a distant light that reaches every vertex, from a depth map of ``size``².

    ``softness`` is the radius in texels of the patch of the map that is asked.
    """
    seen = vertices @ _light_frame(direction).T
    extent = 0.19
    map_xy = (seen[:, :2] / extent * 0.5 + 0.5) * size
    screen = np.column_stack([np.clip(map_xy, -size, 2 * size), seen[:, 2]]).astype(np.float32)
    _, _, depth = rasterize_mesh(screen, faces, size, size)
    at = (vertices + normals * 0.0012) @ _light_frame(direction).T
    x = np.clip((at[:, 0] / extent * 0.5 + 0.5) * size, 0, size - 1)
    y = np.clip((at[:, 1] / extent * 0.5 + 0.5) * size, 0, size - 1)
    lit = np.zeros(len(vertices), np.float32)
    offsets = np.arange(-softness, softness + 1)
    for dy in offsets:
        row = np.clip(y + dy, 0, size - 1).astype(np.int32)
        for dx in offsets:
            column = np.clip(x + dx, 0, size - 1).astype(np.int32)
            lit += at[:, 2] - bias < depth[row, column]
    return lit / np.float32(len(offsets) ** 2)


def _sphere_directions(count: int) -> FloatArray:
    """Directions spread evenly over the sphere (Fibonacci lattice)."""
    k = np.arange(count) + 0.5
    polar, around = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    return np.stack(
        [np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)],
        -1,
    ).astype(np.float32)


def ambient_visibility(
    vertices: FloatArray,
    faces: NDArray[np.int32],
    normals: FloatArray,
    directions: int = 96,
) -> FloatArray:
    """[V] cosine-weighted share 0..1 of the sky that every vertex sees."""
    seen, total = np.zeros(len(vertices)), np.zeros(len(vertices))
    for direction in _sphere_directions(directions):
        weight = np.maximum(normals @ direction, 0.0)
        visible = light_visibility(vertices, faces, normals, direction, size=256, softness=1)
        seen += weight * visible
        total += weight
    return (seen / np.maximum(total, 1e-6)).astype(np.float32)


@dataclass(frozen=True)
class _Fixed:
    """What does not change from frame to frame of an identity."""

    texture: FloatArray  # linear
    half_texture: FloatArray  # two texels averaged to one, for samples that stand for a pixel
    ambient: FloatArray  # [V]
    face_uvs: FloatArray  # [F,2] middle of every face in the atlas


_MOUTH_OPEN = {
    "jawOpen": 0.55,
    "mouthFunnel": 0.2,
    "mouthLowerDownLeft": 0.3,
    "mouthLowerDownRight": 0.3,
    "mouthUpperUpLeft": 0.3,
    "mouthUpperUpRight": 0.3,
}


@lru_cache(maxsize=4)
def _fixed(model: HeadModel[Any], identity: Any) -> _Fixed:
    faces = model.faces
    rest = model.template(identity)
    ambient = ambient_visibility(rest, faces, vertex_normals(rest, faces))
    # Closed lips would leave the mouth black: what lies inside is seen with the mouth open.
    weights = [_MOUTH_OPEN.get(name, 0.0) for name in model.expression_names]
    opened = model.vertices(identity, np.array(weights, np.float32))
    inside = ambient_visibility(opened, faces, vertex_normals(opened, faces))
    in_mouth = np.isin(model.vertex_regions, [int(region) for region in INSIDE_MOUTH_REGIONS])
    lips = model.vertex_regions == Region.LIPS
    ambient = np.where(in_mouth, inside**0.7, ambient)
    ambient = np.where(lips, np.maximum(ambient, 0.75 * inside), ambient)
    texture = to_linear(model.texture(identity))
    size = len(texture) // 2
    half = texture.reshape(size, 2, size, 2, 3).mean((1, 3))
    return _Fixed(texture, half, ambient, model.uvs[model.uv_faces].mean(1))


def _sample(texture: FloatArray, uv: FloatArray) -> FloatArray:
    """Bilinear samples [N,3] of a texture whose first row is at v = 1."""
    size = texture.shape[0]
    x = uv[:, 0] * size - 0.5
    y = (1.0 - uv[:, 1]) * size - 0.5
    x = np.clip(x, 0.0, size - 1.001)
    y = np.clip(y, 0.0, size - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - column)[:, None], (y - row)[:, None]
    flat = texture.reshape(-1, 3)
    at = row * size + column
    top = flat[at] * (1 - fx) + flat[at + 1] * fx
    bottom = flat[at + size] * (1 - fx) + flat[at + size + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy)


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.einsum("nk,nk->n", a, b) if b.ndim == 2 else a @ b


def _normalized(v: FloatArray) -> FloatArray:
    return np.asarray(v / np.sqrt(np.maximum(_dot(v, v), 1e-20))[:, None], np.float32)


def _highlight(
    normal: FloatArray, view: FloatArray, light: Light, exponent: FloatArray
) -> FloatArray:
    """Blinn-Phong lobe, its height normalised so that sharp highlights are bright."""
    half = _normalized(view + light.direction)
    return np.maximum(_dot(normal, half), 0.0) ** exponent


def render(
    model: HeadModel[IdentityT],
    identity: IdentityT,
    expression: NDArray[np.floating] | None,
    joints: NDArray[np.floating] | None,
    viewmat: ArrayLike,
    K: ArrayLike,
    width: int,
    height: int,
) -> Rendering:
    """Draw a head.

    Args:
        model, identity: any head with faces, texture and regions.
        expression: [E] weights, or None at rest.
        joints: [J,3] axis-angle rotations, or None at rest.
        viewmat: [4,4] world to camera (OpenCV: x right, y down, z forward), metres.
        K: [3,3] intrinsics in pixels.
        width, height: size in pixels.

    Raises:
        InputError: a part of the head is behind the camera, or shapes are wrong.
    """
    viewmat, K = np.asarray(viewmat, np.float64), np.asarray(K, np.float64)
    if viewmat.shape != (4, 4) or K.shape != (3, 3):
        raise InputError(f"viewmat must be [4,4] and K [3,3], found {viewmat.shape} and {K.shape}.")
    weights = len(model.expression_names)
    if expression is not None and np.shape(expression) != (weights,):
        raise InputError(f"expression must be [{weights}], found {np.shape(expression)}.")
    fixed = _fixed(model, identity)
    vertices = model.vertices(identity, expression, joints)
    camera = vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
    if camera[:, 2].min() <= 0.01:
        raise InputError("The head reaches behind the camera; move the camera away (about 0.7 m).")
    screen = camera @ K.T
    scale = SUPERSAMPLING
    positions = np.column_stack(
        [scale * screen[:, :2] / screen[:, 2:], camera[:, 2], camera[:, 2]]
    ).astype(np.float32)
    face_ids, barycentrics, depth = rasterize_mesh(
        positions, model.faces, scale * width, scale * height
    )

    normals = vertex_normals(vertices, model.faces)
    shadow = light_visibility(vertices, model.faces, normals, KEY.direction, size=320, softness=2)
    # The lips scatter and stop part of the light that the opening lets in.
    shadow[np.isin(model.vertex_regions, [Region.TEETH, Region.TONGUE])] *= 0.9
    samples = _place_samples(face_ids, barycentrics, depth, model, fixed)
    before, after = model.strand_neighbours.T
    strands = vertices[after] - vertices[before]
    attributes = np.column_stack([normals, vertices, fixed.ambient, shadow, strands])
    surface = samples.interpolate(model.faces, attributes.astype(np.float32))
    uv = samples.interpolate(model.uv_faces, model.uvs)
    eye = (-viewmat[:3, :3].T @ viewmat[:3, 3]).astype(np.float32)
    albedo = np.empty((len(uv), 3), np.float32)
    albedo[: samples.whole] = _sample(fixed.half_texture, uv[: samples.whole])
    albedo[samples.whole :] = _sample(fixed.texture, uv[samples.whole :])
    color = _shade(albedo, surface, samples.regions, eye)
    return _resolve(color, samples, face_ids, depth, model)


@dataclass(frozen=True)
class _Samples:
    """Where light is worked out: once for pixels that show one smooth piece of surface, at every
    covered sample for the rest (edges, silhouettes)."""

    face_ids: NDArray[np.int32]  # those of whole pixels, SUPERSAMPLING² each, then single ones
    barycentrics: FloatArray
    regions: NDArray[np.uint8]  # [whole + single]
    pixels: NDArray[np.int64]  # [whole + single]
    shares: FloatArray  # [whole + single] share of the pixel
    whole: int

    def interpolate(self, faces: NDArray[np.int32], attributes: FloatArray) -> FloatArray:
        values = interpolate(faces, self.face_ids, self.barycentrics, attributes)
        per_pixel = SUPERSAMPLING**2
        split = self.whole * per_pixel
        means = sum(values[k:split:per_pixel] for k in range(per_pixel)) / np.float32(per_pixel)
        return np.concatenate([means, values[split:]])


def _blocks(samples: NDArray[Any]) -> NDArray[Any]:
    """[pixels, SUPERSAMPLING², ...] of an image of samples."""
    scale = SUPERSAMPLING
    height, width = samples.shape[0] // scale, samples.shape[1] // scale
    rest = samples.shape[2:]
    blocks = samples.reshape(height, scale, width, scale, *rest).swapaxes(1, 2)
    return blocks.reshape(height * width, scale**2, *rest)


def _place_samples(
    face_ids: NDArray[np.int32],
    barycentrics: FloatArray,
    depth: FloatArray,
    model: HeadModel[Any],
    fixed: _Fixed,
) -> _Samples:
    ids = _blocks(face_ids)
    drawn = np.flatnonzero(np.maximum.reduce(list(ids.T)) >= 0)
    ids, weights, z = ids[drawn], _blocks(barycentrics)[drawn], _blocks(depth)[drawn]
    regions = model.face_regions[ids]
    smooth = np.minimum.reduce(list(ids.T)) >= 0
    for k in range(1, SUPERSAMPLING**2):
        smooth &= regions[:, k] == regions[:, 0]
        # Across a seam of the atlas the mean of texture coordinates would lie elsewhere in it.
        jump = np.abs(fixed.face_uvs[ids[:, k]] - fixed.face_uvs[ids[:, 0]])
        smooth &= np.maximum(jump[:, 0], jump[:, 1]) < np.float32(0.05)
    # An empty sample has no depth; such pixels are out already.
    near, far = np.minimum.reduce(list(z.T)), np.maximum.reduce(list(z.T))
    smooth &= far < near + np.float32(0.0025)
    whole, single = np.flatnonzero(smooth), np.flatnonzero(~smooth)
    covered = ids[single] >= 0
    owner = np.broadcast_to(single[:, None], covered.shape)[covered]
    per_pixel = SUPERSAMPLING**2
    return _Samples(
        np.concatenate([ids[whole].ravel(), ids[single][covered]]),
        np.concatenate([weights[whole].reshape(-1, 3), weights[single][covered]]),
        np.concatenate([regions[whole, 0], regions[single][covered]]),
        np.concatenate([drawn[whole], drawn[owner]]),
        np.concatenate(
            [
                np.ones(len(whole), np.float32),
                np.full(len(owner), 1 / per_pixel, np.float32),
            ]
        ),
        len(whole),
    )


def _shade(
    albedo: FloatArray,
    surface: FloatArray,
    regions: NDArray[np.uint8],
    eye: FloatArray,
) -> FloatArray:
    """Linear colour [N,3]; ``surface`` [N,11] is normal, place, ambient, shadow, strand."""
    normal = _normalized(surface[:, :3])
    view = _normalized(eye - surface[:, 3:6])
    facing = _dot(normal, view)
    # Thin shells (hair, ears) are seen from behind, too.
    normal *= np.where(facing < 0, np.float32(-1), np.float32(1))[:, None]
    facing = np.abs(facing)
    ambient = surface[:, 6]
    shadow = surface[:, 7]

    key = _dot(normal, KEY.direction)[:, None]
    wrap = WRAP[regions]
    # Blood under the skin: light bleeds past the terminator, red the farthest.
    lit = np.clip((key + wrap) / (1 + wrap), 0, None) ** 1.25
    soft_shadow = shadow[:, None] ** (1.0 / (1.0 + 1.6 * wrap))
    light = lit * soft_shadow * KEY.color
    fill = np.clip((_dot(normal, FILL.direction) + 0.25) / 1.25, 0, None)
    light += (fill * (0.35 + 0.65 * ambient))[:, None] * FILL.color
    up = (0.5 + 0.5 * normal[:, 1])[:, None]
    # Light between surfaces of a colour takes that colour: dark corners stay warm.
    occlusion = ambient[:, None] ** (1.0 + 0.55 * (1.0 - albedo))
    light += (GROUND + (SKY - GROUND) * up) * occlusion
    color = albedo * light

    fresnel = (1.0 - facing) ** 4
    strength = SPECULAR[regions] * (1.0 + 2.0 * fresnel)
    gloss = _highlight(normal, view, KEY, EXPONENT[regions]) * shadow
    gloss += 0.35 * _highlight(normal, view, FILL, EXPONENT[regions]) * ambient
    color += (strength * gloss)[:, None] * KEY.color
    rim = np.clip(_dot(normal, RIM.direction) + 0.15, 0, None) * (1.0 - facing) ** 2
    color += (RIM_SHARE[regions] * rim * ambient)[:, None] * RIM.color * (0.25 + 0.75 * albedo)

    on_hair = np.flatnonzero(regions == Region.HAIR)
    if len(on_hair):
        color[on_hair] += _hair_gloss(
            albedo[on_hair],
            normal[on_hair],
            view[on_hair],
            _normalized(surface[on_hair, 8:11]),
            shadow[on_hair],
            ambient[on_hair],
        )
    return np.asarray(color)


def _hair_gloss(
    albedo: FloatArray,
    normal: FloatArray,
    view: FloatArray,
    strands: FloatArray,
    shadow: FloatArray,
    ambient: FloatArray,
) -> FloatArray:
    """Two shifted bands across the strands (Kajiya and Kay 1989; Marschner et al. 2003)."""
    total = np.zeros_like(albedo)
    # The texture's fine streaks break the band up as single strands do.
    luminance = albedo.mean(1)
    streak = np.clip(luminance / max(float(luminance.mean()), 1e-4) - 1.0, -0.6, 0.8)
    for light, share in ((KEY, shadow), (RIM, 0.4 * ambient), (FILL, 0.6 * ambient)):
        half = _normalized(view + light.direction)
        lit = np.clip(_dot(normal, light.direction) + 0.25, 0, 1) * share
        for shift, exponent, white in ((-0.10, 70.0, 0.035), (0.10, 18.0, 0.0)):
            tangent = _normalized(strands + (shift + 0.10 * streak)[:, None] * normal)
            sine = np.sqrt(np.clip(1.0 - _dot(tangent, half) ** 2, 0, 1))
            band = (sine**exponent * lit * (1.0 + 0.6 * streak))[:, None]
            tint = white + (0.55 if white == 0 else 0.35) * albedo
            total += band * tint * light.color
    return total


def _tone(linear: FloatArray) -> FloatArray:
    """Leave the mid-tones, bend what is brighter than 0.6 softly into 1."""
    knee = np.float32(0.6)
    over = np.maximum(linear - knee, 0.0)
    return np.asarray(np.minimum(linear, knee) + (1 - knee) * (1.0 - np.exp(-over / (1 - knee))))


def _resolve(
    color: FloatArray,
    samples: _Samples,
    face_ids: NDArray[np.int32],
    depth: FloatArray,
    model: HeadModel[Any],
) -> Rendering:
    """Average the samples of every pixel; region and depth are those of its nearest sample."""
    height, width = depth.shape[0] // SUPERSAMPLING, depth.shape[1] // SUPERSAMPLING
    pixels = width * height
    toned = _tone(color) * samples.shares[:, None]
    alpha = np.bincount(samples.pixels, samples.shares, pixels).astype(np.float32)
    sums = [np.bincount(samples.pixels, toned[:, k], pixels) for k in range(3)]
    linear = np.stack(sums, -1).astype(np.float32) / np.maximum(alpha, 1e-6)[:, None]
    rgba = np.zeros((pixels, 4), np.float32)
    drawn = np.flatnonzero(alpha)
    rgba[drawn, :3] = to_srgb(linear[drawn])
    rgba[:, 3] = alpha

    z = _blocks(depth)
    nearest = z.argmin(1)[:, None]
    ids = np.take_along_axis(_blocks(face_ids), nearest, 1)[:, 0]
    regions = np.where(ids >= 0, model.face_regions[ids], np.uint8(Region.BACKGROUND))
    z = np.take_along_axis(z, nearest, 1)[:, 0]
    return Rendering(
        rgba.reshape(height, width, 4),
        regions.reshape(height, width),
        z.reshape(height, width),
    )


def look_at(yaw: float = 0.0, pitch: float = 0.0, distance: float = 0.7) -> Array:
    """viewmat [4,4] of a camera that looks at the origin; degrees, yaw > 0 from the subject's left,
    pitch > 0 from above."""
    y, p = np.radians(yaw), np.radians(pitch)
    back = np.array([np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)])
    right = np.array([np.cos(y), 0.0, -np.sin(y)])
    down = -np.cross(back, right)
    rotation = np.stack([right, down, -back])
    viewmat = np.eye(4)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = -rotation @ (distance * back)
    return viewmat


def intrinsics(size: int = 512, focal: float = 1200.0) -> Array:
    """K [3,3] of the captures' camera (512², focal length 1200), scaled to a square of ``size``."""
    scale = size / 512.0
    return np.array([[focal * scale, 0, size / 2], [0, focal * scale, size / 2], [0, 0, 1.0]])
