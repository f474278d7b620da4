"""The procedural head: sound topology, and shapes that an animator can rely on."""

from __future__ import annotations

import numpy as np
import pytest

from talksplat.mesh import rasterize_mesh
from talksplat_export.heads import skin
from talksplat_export.heads.blendshapes import ARKIT_INDEX, ARKIT_NAMES
from talksplat_export.heads.hair import CUTS, hair_part, place_hair
from talksplat_export.heads.identities import NAMED
from talksplat_export.heads.identity import Identity
from talksplat_export.heads.model import HEAD_REGIONS, INSIDE_MOUTH_REGIONS, Region
from talksplat_export.heads.procedural import JAW, ProceduralHead
from talksplat_export.heads.sculpture import Sculpture
from talksplat_export.heads.visemes import VISEMES, expression, viseme_expression

ADA = NAMED["ada"]


@pytest.fixture(scope="module")
def head():
    return ProceduralHead()


def lip_gaps(head, weights):
    """Height (mm) between upper and lower lip line, from corner to corner."""
    topology = skin.skin_topology()
    vertices = head.vertices(ADA, weights)
    return 1e3 * (vertices[topology.lip_upper] - vertices[topology.lip_lower])[:, 1]


def mirrored(head, vertices):
    """The skin's vertices with left and right exchanged, each at its twin's place."""
    topology = skin.skin_topology()
    result = np.array(vertices[: topology.part.vertex_count])
    for grid in (topology.above, topology.below, topology.bag_upper, topology.bag_lower):
        result[grid] = vertices[grid[:, ::-1]] * (-1, 1, 1)
    for left, right in (topology.lids[::2], topology.lids[1::2]):
        result[left], result[right] = vertices[right] * (-1, 1, 1), vertices[left] * (-1, 1, 1)
    return result


# Topology -----------------------------------------------------------------------------------


def test_every_vertex_is_used_and_no_face_names_one_twice(head):
    assert sorted(set(head.faces.ravel().tolist())) == list(range(len(head.template(ADA))))
    assert head.uv_faces.min() == 0 and head.uv_faces.max() < len(head.uvs)
    for faces in (head.faces, head.uv_faces):
        a, b, c = faces.T
        assert ((a != b) & (b != c) & (c != a)).all()
    assert head.faces.shape == head.uv_faces.shape
    assert head.face_regions.shape == (len(head.faces),)


@pytest.mark.parametrize("name", NAMED)
def test_no_face_of_a_named_head_is_degenerate(head, name):
    corners = head.template(NAMED[name]).astype(float)[head.faces]
    sides = corners[:, 1:] - corners[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    assert area.min() > 0.0
    visible = head.face_regions != Region.HAIR  # curtains that are not worn are folded away
    assert area[visible].min() > 1e-10  # 0.0001 mm²


def test_no_edge_of_the_skin_belongs_to_more_than_two_faces(head):
    part = skin.skin_topology().part
    outside = part.faces[part.face_regions != Region.MOUTH_INTERIOR]
    edges = np.sort(outside[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert counts.max() == 2


def test_the_atlas_holds_every_texel_once(head):
    size = 512
    screen = np.column_stack([head.uvs * (1, -1) * size + (0, size), np.zeros(len(head.uvs))])
    assert head.uvs.min() >= 0 and head.uvs.max() <= 1
    # A texel that two faces hold would show the second when depth prefers later faces.
    first, _, _ = rasterize_mesh(screen, head.uv_faces, size, size)
    last, _, _ = rasterize_mesh(screen, head.uv_faces[::-1], size, size)
    last = np.where(last >= 0, len(head.uv_faces) - 1 - last, -1)
    np.testing.assert_array_equal(first, last)
    assert (first >= 0).mean() > 0.9


def test_skin_weights_sum_to_one_and_parts_follow_their_joints(head):
    np.testing.assert_allclose(head.skin_weights.sum(1), 1.0, atol=1e-6)
    assert head.skin_weights.min() >= 0
    assert ((head.skin_weights > 0).sum(1) <= 4).all()


@pytest.mark.parametrize("name", NAMED)
def test_named_heads_are_finite_and_inside_the_bound(head, name):
    identity = NAMED[name]
    vertices, basis = head.template(identity), head.expression_basis(identity)
    assert np.isfinite(vertices).all() and np.isfinite(basis).all()
    inside = np.isin(head.vertex_regions, [int(region) for region in HEAD_REGIONS])
    assert np.abs(vertices[inside]).max() < 0.15
    assert np.abs(vertices[inside] + np.abs(basis[:, inside]).max(0)).max() < 0.16


def test_every_region_has_faces(head):
    assert set(head.face_regions.tolist()) == {int(r) for r in Region} - {Region.BACKGROUND}


def test_landmarks_are_mirror_images_on_the_skin(head):
    points = head.template(ADA)[head.landmarks].astype(float)
    assert len(points) == 68 and len(set(head.landmarks.tolist())) >= 64
    pairs = [(0, 16), (8, 8), (17, 26), (21, 22), (36, 45), (39, 42), (37, 44), (41, 46), (31, 35)]
    pairs += [(48, 54), (51, 51), (50, 52), (57, 57), (60, 64), (61, 63), (65, 67)]
    for right, left in pairs:
        np.testing.assert_allclose(points[right] * (-1, 1, 1), points[left], atol=1e-6)
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert points[30, 1] > points[51, 1] > points[57, 1] > points[8, 1]


# Shapes -------------------------------------------------------------------------------------


def test_the_head_is_symmetric_and_so_are_its_pairs(head):
    rest = head.template(ADA)
    np.testing.assert_allclose(mirrored(head, rest), rest[: len(mirrored(head, rest))], atol=1e-6)
    basis = head.expression_basis(ADA)
    for name in ARKIT_NAMES:
        twin = name.replace("Left", "Right") if "Left" in name else name.replace("Right", "Left")
        if name in ("jawLeft", "mouthLeft"):
            continue
        shape, other = basis[ARKIT_INDEX[name]], basis[ARKIT_INDEX[twin]]
        expected = mirrored(head, shape)
        np.testing.assert_allclose(expected, other[: len(expected)], atol=2e-6, err_msg=name)


def test_every_shape_moves_something(head):
    basis = head.expression_basis(ADA)
    moved = 1e3 * np.abs(basis).max((1, 2))
    for name, most in zip(ARKIT_NAMES, moved, strict=True):
        sideways = name.startswith(("eyeLookIn", "eyeLookOut"))  # these turn the eyeballs only
        assert most == 0 if sideways else most > 1.0, name
        assert most < 30.0, name


def test_lips_touch_all_along_at_rest(head):
    topology = skin.skin_topology()
    rest = head.template(ADA)
    np.testing.assert_array_equal(rest[topology.lip_upper], rest[topology.lip_lower])


def test_the_jaw_opens_the_mouth_steadily_and_mouth_close_shuts_it_again(head):
    gaps = [lip_gaps(head, expression({"jawOpen": w})).max() for w in np.linspace(0, 1, 11)]
    assert (np.diff(gaps) > 1.0).all() and 20 < gaps[-1] < 35
    for weight in (0.3, 1.0):
        shut = lip_gaps(head, expression({"jawOpen": weight, "mouthClose": weight}))
        assert np.abs(shut).max() < 0.01


def test_visemes_open_the_mouth_as_their_sounds_do(head):
    opening = {name: lip_gaps(head, viseme_expression(name)).max() for name in VISEMES}
    assert opening["sil"] == 0 and opening["PP"] < 0.1
    assert 1.0 < opening["FF"] < 6
    assert opening["aa"] > opening["E"] > opening["I"] > opening["FF"]
    assert opening["O"] > opening["U"]
    for name in VISEMES:
        # Lips may press on each other, not pass through.
        assert lip_gaps(head, viseme_expression(name)).min() > -0.3, name

    def width(name):
        line = head.vertices(ADA, viseme_expression(name))[skin.skin_topology().lip_upper]
        return line[-1, 0] - line[0, 0]

    assert width("I") > width("sil") > width("O") > width("U")


def test_for_f_the_lower_lip_meets_the_upper_teeth(head):
    vertices = 1e3 * head.vertices(ADA, viseme_expression("FF"))
    lip = vertices[skin.skin_topology().lip_lower[skin.MOUTH_COLUMN]]
    teeth = head.vertex_regions == Region.TEETH
    upper = teeth & (head.skin_weights[:, JAW] == 0)
    gap = np.linalg.norm(vertices[upper] - lip, axis=1).min()
    assert gap < 5.0


@pytest.mark.parametrize("side", [1, -1])
def test_blinks_close_the_lids_over_the_ball(head, side):
    topology = skin.skin_topology()
    upper, lower = topology.lid_upper(side), topology.lid_lower(side)
    name = "eyeBlinkLeft" if side > 0 else "eyeBlinkRight"

    def opening(weight):
        vertices = head.vertices(ADA, expression({name: weight}))
        return 1e3 * (vertices[upper] - vertices[lower])[:, 1].max()

    openings = [opening(weight) for weight in np.linspace(0, 1, 6)]
    assert openings[0] > 10 and (np.diff(openings) < 0).all()
    assert openings[-1] < 0.1 * openings[0]


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.75, 1.0])
def test_moving_lids_stay_outside_the_eyeballs(head, weight):
    vertices = head.vertices(ADA, expression({"eyeBlink": weight}))
    balls = head.vertex_regions == Region.EYEBALLS
    left = balls & (head.template(ADA)[:, 0] > 0)
    center = head.joint_positions(ADA)[3]
    radius = np.linalg.norm(head.template(ADA)[left] - center, axis=1).min()
    margin = vertices[skin.skin_topology().lid_upper(1)]
    assert np.linalg.norm(margin - center, axis=1).min() > radius


def test_eye_look_turns_the_eyeballs(head):
    balls = head.vertex_regions == Region.EYEBALLS
    left = balls & (head.template(ADA)[:, 0] > 0)
    rest = head.template(ADA)[left]
    front = np.argmax(rest[:, 2])
    for name, axis, sign in (("Out", 0, 1), ("In", 0, -1), ("Up", 1, 1), ("Down", 1, -1)):
        turned = head.vertices(ADA, expression({f"eyeLook{name}Left": 1.0}))[left]
        assert sign * (turned[front] - rest[front])[axis] > 0.004
        # A rotation: the ball keeps its size.
        center = head.joint_positions(ADA)[3]
        np.testing.assert_allclose(
            np.linalg.norm(turned - center, axis=1),
            np.linalg.norm(rest - center, axis=1),
            atol=1e-6,
        )


def test_the_jaw_carries_lower_teeth_and_tongue_but_not_upper_teeth(head):
    moved = np.abs(head.expression_basis(ADA)[ARKIT_INDEX["jawOpen"]]).max(1)
    teeth = head.vertex_regions == Region.TEETH
    lower = head.skin_weights[:, JAW] == 1
    assert moved[teeth & lower].min() > 0.005
    assert moved[teeth & ~lower].max() == 0
    assert moved[head.vertex_regions == Region.TONGUE].min() > 0.003


def test_turning_the_root_moves_the_head_rigidly(head):
    joints = np.zeros((5, 3))
    joints[0] = (0.1, -0.3, 0.05)
    weights = expression({"jawOpen": 0.4})
    still, turned = (head.vertices(ADA, weights, j).astype(float) for j in (None, joints))
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, len(still), (2, 2000))
    np.testing.assert_allclose(
        np.linalg.norm(still[a] - still[b], axis=1),
        np.linalg.norm(turned[a] - turned[b], axis=1),
        atol=1e-6,
    )
    assert np.abs(still - turned).max() > 0.02


def test_the_inside_of_the_mouth_stays_inside_the_head_at_rest(head):
    """Nobody sees teeth, tongue or palate while the lips are closed."""
    vertices = head.template(ADA)
    for axes in ((0, 1, 2), (2, 1, 0)):
        view = vertices[:, axes].astype(float) * (1, -1, -1)
        screen = view * (2000, 2000, 1) + (300, 300, 0)
        face_ids, _, _ = rasterize_mesh(screen, head.faces, 600, 600)
        seen = head.face_regions[face_ids[face_ids >= 0]]
        assert not np.isin(seen, [int(r) for r in INSIDE_MOUTH_REGIONS]).any()


def test_identities_share_one_topology_and_differ_in_shape(head):
    average = head.template(Identity())
    assert average.shape == head.template(ADA).shape
    assert np.abs(average - head.template(ADA)).max() > 0.005


@pytest.mark.parametrize("style", CUTS)
def test_every_hair_style_fits_the_bound_and_covers_the_crown_unless_bald(style):
    identity = Identity(hair_style=style)
    vertices = place_hair(identity)
    assert vertices.shape == (hair_part().vertex_count, 3)
    assert np.isfinite(vertices).all() and np.abs(vertices).max() < 150
    crown = Sculpture(identity).distance(vertices[:1])[0]
    assert crown < -5 if style == "bald" else crown > 2
