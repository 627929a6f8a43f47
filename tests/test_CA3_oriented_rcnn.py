"""CA3_oriented_rcnn: what the check cells of code.ipynb leave out: properties, given definitions, loaders, settings.

The check cells hold the exercises against shapely, OpenCV, torchvision and pycocotools, or by hand; the wrong versions
that they notice are counted by `make mutants`.
"""

import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_files import LIGHT, NAMES, PICTURES, PNG, by_name, encode, tables, texts, xmls
from PIL import Image
from torch.testing import assert_close
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import box_iou

from nndl import rooms
from nndl.notebooks import load_definitions
from real_data import REAL, needs

ROOM = rooms.ROOT / "CA3_oriented_rcnn"
PI = math.pi


@pytest.fixture(scope="module")
def room():
    return load_definitions(ROOM / "code.ipynb")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def start(room, begin_run):
    """start(profile, overrides) begins a run whose results stay out of the checkout; room.run and room.cfg are set."""
    return partial(begin_run, room)


def random_boxes(n, side=60.0, small=5.0, large=50.0, dtype=torch.float32):
    low, high = torch.tensor([0, 0, small, small, -PI]), torch.tensor([side, side, large, large, PI])
    return (low + (high - low) * torch.rand(n, 5)).to(dtype)


def polygons_of(boxes):
    """shapely's polygons, by corners worked out here."""
    shapes = []
    for cx, cy, w, h, theta in np.asarray(boxes, dtype=np.float64):
        turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
        corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 @ turn.T + [cx, cy]
        shapes.append(shapely.Polygon(corners))
    return np.array(shapes)


def shapely_iou(boxes1, boxes2):
    a, b = polygons_of(boxes1), polygons_of(boxes2)
    common = shapely.area(shapely.intersection(a[:, None], b))
    return common / (shapely.area(a)[:, None] + shapely.area(b) - common)


# ---------------------------------------------------------------- boxes and their names


def same_rectangles(room, first, second, atol=1e-3):
    """Whether two lists of boxes are the same rectangles, by their corners in any order."""
    corners = [room.corners(boxes.double()) for boxes in (first, second)]
    distance = (corners[0][:, :, None] - corners[1][:, None]).norm(dim=-1)  # (n, 4, 4)
    return bool((distance.amin(1) < atol).all() and (distance.amin(2) < atol).all())


# ---------------------------------------------------------------- overlap


def one(room, first, second, dtype=torch.float32):
    """The overlap of two boxes, both ways round the same."""
    a, b = torch.tensor([first], dtype=dtype), torch.tensor([second], dtype=dtype)
    there, back = room.rotated_iou(a, b).item(), room.rotated_iou(b, a).item()
    assert abs(there - back) < 1e-6
    return there


@pytest.mark.parametrize("degrees", [1e-6, 1e-4, 1e-3, 1e-2])
def test_almost_identical_boxes_overlap_by_almost_1(room, degrees):
    assert one(room, [50, 40, 30, 10, 0.3], [50, 40, 30, 10, 0.3 + math.radians(degrees)]) > 1 - 1e-3


@pytest.mark.parametrize("theta", [0.0, 0.4, PI / 4])
def test_touching_edges_and_corners_do_not_overlap(room, theta):
    u, v = (10 * math.cos(theta), 10 * math.sin(theta)), (-10 * math.sin(theta), 10 * math.cos(theta))
    for x, y in (u, v, (u[0] + v[0], u[1] + v[1])):
        assert one(room, [0, 0, 10, 10, theta], [x, y, 10, 10, theta]) < 1e-6


def test_contained_box(room):
    assert one(room, [0, 0, 20, 10, 0.5], [1, 1, 10, 5, 0.5]) == pytest.approx(0.25, abs=1e-6)
    assert one(room, [0, 0, 20, 10, 0.5], [3.189349, 4.591085, 10, 5, 0.5]) == pytest.approx(
        0.25, abs=1e-5
    )  # a corner shared


def test_1000_to_1(room):
    assert one(room, [0, 0, 1000, 1, 0.4], [0, 0, 1000, 1, 0.4]) == pytest.approx(1, abs=1e-6)
    tilted = [0, 0, 1000, 1, 0.4005]
    truth = shapely_iou([[0, 0, 1000, 1, 0.4]], [tilted])[0, 0]
    assert one(room, [0, 0, 1000, 1, 0.4], tilted) == pytest.approx(truth, abs=1e-4)


def test_far_out_and_tiny(room):
    assert one(room, [1e4, -1e4, 30, 10, 0.3], [1e4, -1e4, 30, 10, 0.3]) == pytest.approx(1, abs=1e-6)
    shifted = shapely_iou([[1e4, 1e4, 30, 10, 0.3]], [[1e4 + 4, 1e4, 30, 10, 0.5]])[0, 0]
    assert one(room, [1e4, 1e4, 30, 10, 0.3], [1e4 + 4, 1e4, 30, 10, 0.5]) == pytest.approx(shifted, abs=1e-4)
    assert one(room, [1, 1, 1e-3, 5e-4, 0.3], [1, 1, 1e-3, 5e-4, 0.3]) == pytest.approx(1, abs=1e-6)


BOX = st.tuples(*[st.floats(low, high) for low, high in ((-50, 50), (-50, 50), (0.5, 80), (0.5, 80), (-4, 4))])


@settings(max_examples=60, deadline=None)
@given(BOX, BOX, st.floats(-4, 4), st.floats(-1000, 1000), st.floats(-1000, 1000))
def test_overlap_does_not_depend_on_the_frame(room, first, second, turn, right, down):
    a, b = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    value = room.rotated_iou(a, b).item()
    assert -1e-12 <= value <= 1 + 1e-12
    assert abs(room.rotated_iou(b, a).item() - value) < 1e-9

    def moved(box):
        c, s = math.cos(turn), math.sin(turn)
        x, y = box[0, 0] * c - box[0, 1] * s + right, box[0, 0] * s + box[0, 1] * c + down
        return torch.tensor([[x, y, box[0, 2], box[0, 3], box[0, 4] + turn]], dtype=torch.float64)

    assert abs(room.rotated_iou(moved(a), moved(b)).item() - value) < 1e-8
    assert abs(shapely_iou(a, b)[0, 0] - value) < 1e-8


def test_upright_overlap_is_torchvisions(room):
    a, b = random_boxes(50), random_boxes(50)
    a[:, 4] = b[:, 4] = 0
    assert_close(room.rotated_iou(a, b), box_iou(room.outer_boxes(a), room.outer_boxes(b)), atol=1e-5, rtol=1e-5)
    c = random_boxes(20)
    assert_close(room.outer_iou(c, a), box_iou(room.outer_boxes(c), room.outer_boxes(a)))


# ---------------------------------------------------------------- suppression


def test_tiles_cover_the_picture(room):
    for width, height, size, gap in ((420, 320, 160, 64), (100, 90, 160, 10), (161, 160, 160, 0)):
        seen = np.zeros((height, width), dtype=bool)
        for left, top in room.helper.tile_windows(width, height, size, gap):
            assert left >= 0 and top >= 0
            seen[top : top + size, left : left + size] = True
        assert seen.all()
    with pytest.raises(room.helper.DataError, match="cannot overlap"):
        room.helper.tile_windows(100, 100, 50, 50)


# ---------------------------------------------------------------- offsets


def test_the_midpoint_form_gives_nearly_upright_boxes_one_pair_of_offsets(room):
    boxes = torch.tensor([[60.0, 45, 40, 20, math.radians(degrees)] for degrees in (-90, -87.1, -2.9, 0.1, 2.9, 89)])
    assert (room.MidpointForm.encode(boxes, room.upright(room.outer_boxes(boxes)))[:, 4:] == 0.5).all()


def test_wild_offsets_stay_finite(room):
    anchors = random_boxes(20)
    for decode, n in ((room.decode, 5), (room.decode_midpoint, 6)):
        assert decode(torch.randn(20, n) * 1000, anchors).isfinite().all()


# ---------------------------------------------------------------- average precision


def toy_part(room, boxes, labels, ignore=None):
    ignore = [np.zeros(len(b), dtype=bool) for b in boxes] if ignore is None else ignore
    images = np.zeros((len(boxes), 32, 32, 3), np.uint8)
    boxes = [np.array(b, dtype=np.float32).reshape(-1, 5) for b in boxes]
    return room.helper.Part(images, boxes, [np.array(n, dtype=np.int64) for n in labels], ignore)


def test_unwanted_objects_do_not_count(room):
    boxes = [[10.0, 10, 8, 4, 0.0], [30.0, 30, 8, 4, 0.8]]
    part = toy_part(room, [boxes], [[0, 0]])
    found = [{"boxes": torch.tensor(boxes[:1]), "scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.long)}]
    judged = room.judge(found, part, 0, 0.5)
    values = [room.precision_of(judged, "voc12", np.array(w)) for w in ([True, True], [True, False], [False, True])]
    assert values == [0.5, 1, 0]
    wrong = {"boxes": torch.tensor([[60.0, 60, 8, 4, 0.8]]), "scores": torch.tensor([2.0]), "labels": torch.tensor([0])}
    judged = room.judge([{name: torch.cat([wrong[name], value]) for name, value in found[0].items()}], part, 0, 0.5)
    assert room.precision_of(judged, "voc12") == 0.25, "a false alarm above the only hit"
    level = room.in_range(judged.boxes, "angle", 0, 10)
    assert room.precision_of(judged, "voc12", np.array([True, False]), alarms=level) == 1, "an alarm of another range"
    assert room.in_range(judged.truth, "angle", 40, 50).tolist() == [False, True]
    assert room.in_range(judged.truth, "aspect", 1.5, 2.5).tolist() == [True, True]
    assert room.in_range(judged.truth, "aspect", 1, 2).tolist() == [False, False]
    assert room.in_range(judged.truth, "aspect", 1, 2, closed=True).tolist() == [True, True]


def test_share_found_is_counted_by_picture(room):
    level, leaning = [30.0, 30, 8, 4, 0.0], [10.0, 10, 8, 4, 0.5]
    part = toy_part(room, [[level, leaning], [leaning]], [[0, 1], [0]])
    found = [{"boxes": torch.tensor(boxes), "scores": torch.ones(len(boxes)), "labels": torch.tensor(labels)}
             for boxes, labels in (([level], [0]), ([leaning], [0]))]  # fmt: skip
    judged = room.judge_all(found, part, (0.5,))
    assert room.share_found(judged, part, True).tolist() == [[1, 0], [1, 0]]
    assert room.share_found(judged, part, False).tolist() == [[0, 1], [1, 1]]


def test_angle_errors(room):
    truth, found = [10.0, 10, 20, 5, PI / 2 - 0.01], [10.0, 10, 20, 5, -PI / 2 + 0.02]
    part = toy_part(room, [[truth]], [[0]])
    found = [{"boxes": torch.tensor([found]), "scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.long)}]
    error, picture = room.angle_errors(room.judge(found, part, 0, 0.5))
    assert error == pytest.approx([math.degrees(0.03)], abs=1e-3) and picture.tolist() == [0]


# ---------------------------------------------------------------- the detectors


def test_anchors(room):
    """Upright anchors are torchvision's, which stand half a stride to the left and above ours."""
    shapes = room.MidpointForm(size=4.0).shapes
    ours = room.outer_boxes(room.grid_anchors(shapes, [(3, 5), (2, 2)], (4, 8)))
    theirs = AnchorGenerator(((16,), (32,)), ((2.0, 1.0, 0.5),) * 2)  # torchvision's ratio is height to width
    from torchvision.models.detection.image_list import ImageList

    maps = [torch.zeros(1, 1, 3, 5), torch.zeros(1, 1, 2, 2)]
    expected = theirs(ImageList(torch.zeros(1, 3, 12, 20), [(12, 20)]), maps)[0]
    stride = torch.tensor([[20 / 5 / 2, 12 / 3 / 2] * 2] * 45 + [[5.0, 3.0] * 2] * 12)
    assert ours.shape == expected.shape
    assert (ours - expected - stride).abs()[:45].max() <= 0.51  # torchvision rounds its shapes
    oriented = room.AnchorForm(angles=6)
    assert oriented.shapes.shape == (12, 3) and (oriented.shapes[:, 2].abs() <= PI / 2).all()


def test_ignored_regions_teach_nothing(room):
    assigned, boxes = torch.tensor([-1, -1, 0]), torch.tensor([[5.0, 5, 4, 4, 0.3], [50, 50, 4, 4, 0], [5, 5, 4, 4, 0]])
    region = torch.tensor([[5.0, 5, 12, 12, 0]])
    assert room.mark_ignored(assigned, boxes, region).tolist() == [-2, -1, 0]
    assert room.mark_ignored(assigned, boxes, region[:0]).tolist() == [-1, -1, 0]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_backbone_keeps_its_strides(room, name):
    backbone = room.Backbone(name, 8, 12)
    maps = list(backbone(torch.zeros(1, 3, 64, 96)).values())
    assert [tuple(level.shape) for level in maps] == [(1, 12, 64 // s, 96 // s) for s in backbone.strides]
    with pytest.raises(ValueError, match="backbone 'vgg'"):
        room.Backbone("vgg", 8, 12)


def detectors(room):
    def backbone():
        return room.Backbone("resnet18", 8, 16)

    yield room.OrientedRCNN(backbone(), room.MidpointForm(), 2, 16, 20, 8)
    yield room.OrientedRCNN(backbone(), room.AnchorForm(), 2, 16, 20, 8)
    yield room.AxisAlignedRCNN(backbone(), 2, 16, 20, 8)
    yield room.RotatedRetinaNet(backbone(), room.AnchorForm(), 2)


def test_detectors_learn_and_answer_in_one_form(room):
    x = torch.randn(2, 3, 64, 96)
    none = {
        "boxes": torch.zeros(0, 5),
        "labels": torch.zeros(0, dtype=torch.long),
        "ignore": torch.zeros(0, dtype=bool),
    }
    some = {"boxes": torch.tensor([[30.0, 30, 20, 8, 0.5], [60, 20, 12, 6, 0]]), "labels": torch.tensor([0, 1]),
            "ignore": torch.tensor([False, True])}  # fmt: skip
    for model in detectors(room):
        for targets in ([some, none], [none, none]):  # pictures without objects, and one that nobody judges
            losses = model.train()(x, targets)
            assert all(torch.isfinite(loss) for loss in losses.values()), type(model).__name__
            sum(losses.values()).backward()
        with torch.no_grad():
            for one in model.eval()(x):
                assert one["boxes"].shape == (len(one["scores"]), 5) and len(one["labels"]) == len(one["scores"])
                assert one["labels"].dtype == torch.long and set(one["labels"].tolist()) <= {0, 1}
                assert ((one["scores"] >= 0) & (one["scores"] <= 1)).all()


def test_empty_proposals_pass_every_stage(room):
    model = next(detectors(room)).eval()
    maps = model.maps(torch.randn(1, 3, 64, 96))
    one = model.detect(maps, 0, torch.zeros(0, 5))
    assert one["boxes"].shape == (0, 5) and one["scores"].shape == (0,)
    logits, offsets, anchors, counts = model.rpn(maps)
    broken = torch.full_like(offsets[0], math.nan)
    boxes, scores = model.rpn.propose(logits[0], broken, anchors, counts)
    assert len(boxes) == len(scores) == 0
    assert [len(one["boxes"]) for one in room.suppress([one], 0.5)] == [0]


def test_training_teaches(room, start):
    """A tiny detector comes nearer to one picture's boxes in a few steps."""
    start("tiny")
    part = room.helper.make_harbour(2, seed=0)
    x, targets = room.Batches(part).__getitems__([0, 1])
    model = room.OrientedRCNN(room.Backbone("resnet18", 8, 16), room.MidpointForm(), 2, 32, 40, 16).train()
    optimizer, losses = torch.optim.AdamW(model.parameters(), 3e-3), []
    for _ in range(25):
        loss = sum(model(x, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:2])


# ---------------------------------------------------------------- data


def test_harbour_is_what_it_says(room):
    part = room.helper.make_harbour(20, seed=5)
    again = room.helper.make_harbour(20, seed=5)
    assert np.array_equal(part.images, again.images) and part.images.shape == (20, 128, 128, 3)
    for boxes, labels in zip(part.boxes, part.labels):
        points = room.corners(torch.from_numpy(boxes))
        assert ((points > 0) & (points < 128)).all() and (labels == 1).sum() == 1 and len(boxes) >= 4
        overlap = room.rotated_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).fill_diagonal_(0)
        assert overlap.max() < 0.05, "true objects do not overlap"
    theta = np.concatenate([room.canonical(torch.from_numpy(boxes))[:, 4].numpy() for boxes in part.boxes])
    assert theta.min() < -1 and theta.max() > 1
    kept, every = room.survivors(part, 0.5, room.outer_iou)
    assert kept.sum() < every.sum(), "crowds in which outer boxes overlap by half are the point"
    assert np.array_equal(*room.survivors(part, 0.1, room.rotated_iou))


ROLABELIMG = """<annotation><folder>{day}</folder><size><width>64</width><height>48</height></size>
<object><name>{name}</name><difficult>1</difficult>
<robndbox><cx>{cx}</cx><cy>20</cy><w>{w}</w><h>10</h><angle>{angle}</angle></robndbox></object>
<object><name>Person</name><bndbox><xmin>2</xmin><ymin>4</ymin><xmax>8</xmax><ymax>14</ymax></bndbox></object>
</annotation>"""
GOOD = dict(day="20210116", name="Car", cx="30", w="20", angle="0.5")


def test_rolabelimg(room):
    names, boxes, difficult, day = room.helper.read_rolabelimg(ROLABELIMG.format(**GOOD), "a.xml")
    assert names == ["Car", "Person"] and difficult.tolist() == [True, False] and day == "20210116"
    assert boxes.tolist() == [[30, 20, 20, 10, 0.5], [5, 9, 6, 10, 0]]


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(angle="28.6"), "a.xml: object 1 has an angle beyond a full turn .degrees"),
        (dict(w="0"), "a.xml: object 1 has no area"),
        (dict(w="nan"), "a.xml: object 1 has a value that is not a number"),
        (dict(cx="70"), "a.xml: object 1 has its centre outside the picture of 64x48"),
        (dict(w="wide"), "a.xml, object 1, w: 'wide' is not a number"),
        (dict(w="2_0"), "a.xml, object 1, w: '2_0' is not a number"),
        (dict(day="<"), "a.xml: not readable XML"),
    ],
    ids=["degrees", "zero area", "NaN", "outside", "not a number", "underscore", "broken"],
)
def test_bad_rolabelimg_is_named(room, change, words):
    with pytest.raises(room.helper.DataError, match=words) as error:
        room.helper.read_rolabelimg(ROLABELIMG.format(**(GOOD | change)), "a.xml")
    assert "\n" not in str(error.value)


def test_rolabelimg_without_a_box_is_named(room):
    text = "<annotation><object><name>Car</name></object></annotation>"
    with pytest.raises(room.helper.DataError, match="neither robndbox nor bndbox"):
        room.helper.read_rolabelimg(text, "a.xml")


@pytest.mark.parametrize("nasty", xmls(ROLABELIMG.format(**GOOD), "a.xml"), ids=str)
def test_nasty_rolabelimg(room, nasty):
    read = nasty.meets(lambda: room.helper.read_rolabelimg(nasty.data, nasty.name))
    if read:
        assert read[0] == ["Car", "Person"] and read[1][0].tolist() == [30, 20, 20, 10, 0.5] and read[3] == "20210116"


@pytest.mark.parametrize("text, set_", [(" 1 ", True), ("True", True), ("0", False), ("", False), ("\n0\n", False)])
def test_flags_of_rolabelimg(room, text, set_):
    xml = ROLABELIMG.format(**GOOD).replace("<difficult>1<", f"<difficult>{text}<")
    assert room.helper.read_rolabelimg(xml, "a.xml")[2].tolist() == [set_, False]
    with pytest.raises(room.helper.DataError, match=r"a\.xml, object 1, difficult: 'maybe' is not a flag"):
        room.helper.read_rolabelimg(xml.replace(f"<difficult>{text}<", "<difficult>maybe<"), "a.xml")


def test_size_0x0_blames_the_size(room):
    xml = ROLABELIMG.format(**GOOD).replace(">64<", ">0<").replace(">48<", ">0<")
    with pytest.raises(room.helper.DataError, match=r"a\.xml: its size is 0x0"):
        room.helper.read_rolabelimg(xml, "a.xml")


def test_annotation_of_another_kind_is_no_empty_picture(room):
    with pytest.raises(room.helper.DataError, match="XML of another kind"):
        room.helper.read_rolabelimg("<annotation><item>Car</item></annotation>", "a.xml")
    empty = "<annotation><filename>a</filename></annotation>"
    assert room.helper.read_rolabelimg(empty, "a.xml")[1].shape == (0, 5)


HRSC = """<HRSC_Image><HRSC_Objects><HRSC_Object><Class_ID>100000001</Class_ID><difficult>0</difficult>
<mbox_cx>30.5</mbox_cx><mbox_cy>20</mbox_cy><mbox_w>50</mbox_w><mbox_h>{h}</mbox_h><mbox_ang>{angle}</mbox_ang>
</HRSC_Object></HRSC_Objects></HRSC_Image>"""


def test_hrsc(room):
    names, boxes, difficult = room.helper.read_hrsc(HRSC.format(h=9, angle=-0.7), "b.xml")
    assert (names, boxes.tolist(), difficult.tolist()) == (["100000001"], [[30.5, 20, 50, 9, -0.7]], [False])
    assert room.helper.read_hrsc("<HRSC_Image><HRSC_Objects/></HRSC_Image>", "b.xml")[1].shape == (0, 5)
    with pytest.raises(room.helper.DataError, match=r"b\.xml: object 1 has no area"):
        room.helper.read_hrsc(HRSC.format(h=-1, angle=0), "b.xml")
    with pytest.raises(room.helper.DataError, match="degrees"):
        room.helper.read_hrsc(HRSC.format(h=9, angle=45), "b.xml")


@pytest.mark.parametrize("nasty", xmls(HRSC.format(h=9, angle=-0.7), "b.xml"), ids=str)
def test_nasty_hrsc(room, nasty):
    read = nasty.meets(lambda: room.helper.read_hrsc(nasty.data, nasty.name))
    if read:
        assert read[0] == ["100000001"] and read[1].tolist() == [[30.5, 20, 50, 9, -0.7]]
    with pytest.raises(room.helper.DataError, match="no HRSC_Objects"):
        room.helper.read_hrsc("<HRSC_Image><objects/></HRSC_Image>", "b.xml")


DOTA = "imagesource:GoogleEarth\ngsd:0.5\n0 0 10 0 10 5 0 5 ship 0\n20 20 24 23 21 27 17 24 harbor 1\n"


def test_dota(room):
    names, polygons, difficult = room.helper.read_dota(DOTA, "c.txt")
    assert names == ["ship", "harbor"] and difficult.tolist() == [False, True] and polygons.shape == (2, 4, 2)
    boxes = room.from_polygons(torch.from_numpy(polygons))
    assert_close(boxes[0], torch.tensor([5.0, 2.5, 10, 5, 0]).double())
    assert_close(boxes[1, 2:4], torch.tensor([5.0, 5.0]).double())
    assert room.from_polygons(torch.from_numpy(room.helper.read_dota("gsd:1\n", "c.txt")[1])).shape == (0, 5)


@pytest.mark.parametrize(
    "line, words",
    [
        ("0 0 10 0 10 5 0 ship 0", "c.txt, line 2: expected 8 coordinates"),
        ("0 0 10 0 10 5 0 5", "c.txt, line 2: expected 8 coordinates"),
        ("0 0 10 0 0 5 10 5 ship 0", "c.txt, line 2: a polygon that crosses itself"),
        ("0 0 10 0 20 0 30 0 ship 0", "c.txt, line 2: a polygon without area"),
        ("0 0 nan 0 10 5 0 5 ship 0", "c.txt, line 2: a polygon without area, or not finite"),
        ("0 0 10 0 10 5 0 5 large vehicle 0", "c.txt, line 2: expected 8 coordinates, a class of one word"),
        ("0 0 10 0 10 5 0 5 large vehicle", "c.txt, line 2 .*'vehicle' is not a flag"),
        ("2 0.1 0.1 0.4 0.1 0.4 0.3 0.1 0.3", "c.txt, line 2: 0.3 stands where a class is expected; a YOLO file"),
        ("2 0.1 0.1 0.4 0.1 0.4 0.3 0.1 0.3 0.98", "c.txt, line 2: 0.3 stands where a class is expected"),
        ("0, 0, 10, 0, 10, 5, 0, 5, ship, 0", "c.txt, line 2: expected 8 coordinates"),
    ],
    ids=[
        "seven",
        "no class",
        "crossing",
        "flat",
        "NaN",
        "two words",
        "two words, no flag",
        "YOLO-OBB",
        "YOLO-OBB, score",
        "commas",
    ],
)
def test_bad_dota_is_named(room, line, words):
    with pytest.raises(room.helper.DataError, match=words) as error:
        room.helper.read_dota(f"gsd:1\n{line}\n", "c.txt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("nasty", texts(DOTA, "c.txt"), ids=str)
def test_nasty_dota(room, nasty):
    read = nasty.meets(lambda: room.helper.read_dota(nasty.data, nasty.name))
    if read:
        assert read[0] == ["ship", "harbor"] and read[2].tolist() == [False, True]


def write_hit(folder, layout="table", spoil=None):
    """A tiny HIT-UAV: two pictures of 64x48 for each split, each with a car, another vehicle and a region to ignore."""
    rows, days = [], {"train": "20210116", "val": "20210123", "test": "20210121"}
    boxes = {"Car": (30, 20, 20, 10, 30), "OtherVehicle": (50, 30, 8, 16, 100), "Bicycle": (10, 40, 10, 4, 0),
             "Person": (20, 10, 3, 6, 0), "DontCare": (55, 10, 9, 9, 0)}  # fmt: skip
    if spoil:
        boxes |= spoil
    for split, day in days.items():
        for number in range(2):
            image = np.random.default_rng(number).integers(0, 255, (48, 64), dtype=np.uint8)
            place = folder / "images" / split if layout == "table" else folder / "rotate_xml" / "JPEGImages"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{split}{number}.png")
            rows += [[split, f"{split}{number}.webp", name, *box] for name, box in boxes.items()]
            if layout == "published":
                objects = "".join(
                    f"<object><name>{name}</name><robndbox><cx>{x}</cx><cy>{y}</cy><w>{w}</w><h>{h}</h>"
                    f"<angle>{math.radians(a)}</angle></robndbox></object>"
                    for name, (x, y, w, h, a) in boxes.items()
                )
                xml = folder / "rotate_xml" / "Annotations" / f"{split}{number}.xml"
                xml.parent.mkdir(parents=True, exist_ok=True)
                xml.write_text(f"<annotation><folder>{day}</folder>{objects}</annotation>", encoding="utf-8")
    if layout == "table":
        columns = ["split", "image", "class", "cx", "cy", "w", "h", "angle_deg"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "boxes.csv", index=False)
    return folder


@pytest.mark.parametrize("layout", ["table", "published"])
def test_hit_uav_comes_back(room, tmp_path, layout):
    data = room.helper.load_hit_uav(write_hit(tmp_path, layout), scale=0.5)
    assert (data.source, data.classes) == ("real", ["Car", "Bicycle"])
    for part in (data.train, data.val, data.test):
        assert part.images.shape == (2, 24, 32, 1)
        assert sorted(part.labels[0][~part.ignore[0]].tolist()) == [0, 0, 1], "Person is background"
        assert part.ignore[0].sum() == 1
        truth = torch.tensor([[15, 10, 10, 5, PI / 6], [25, 15, 4, 8, math.radians(100)], [5, 20, 5, 2, 0]])
        ours = torch.from_numpy(part.boxes[0][~part.ignore[0]])
        order = ours[:, 0].argsort()
        assert same_rectangles(room, ours[order], truth[truth[:, 0].argsort()])
    assert data.counts() == {"train": 2, "val": 2, "test": 2, "train boxes": 6, "val boxes": 6, "test boxes": 6}
    assert len(room.helper.load_hit_uav(tmp_path, limit=1).train) == 1


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda folder: write_hit(folder, spoil={"Boat": (9, 9, 5, 5, 0)}), "unknown class Boat"),
        (lambda folder: write_hit(folder, spoil={"Car": (99, 9, 5, 5, 0)}), "centre outside the picture of 64x48"),
        (lambda folder: write_hit(folder, spoil={"Car": (9, 9, 0, 5, 0)}), "has no area"),
        (lambda folder: next((write_hit(folder) / "images" / "val").iterdir()).unlink(), r"no file for val\d\.webp"),
        (
            lambda folder: next((write_hit(folder) / "images" / "val").iterdir()).write_text("x", encoding="utf-8"),
            "not a readable picture",
        ),
        (lambda folder: folder.mkdir(exist_ok=True), "neither boxes.csv nor rotate_xml"),
        (lambda folder: (write_hit(folder) / "boxes.csv").write_text("split,image\n", encoding="utf-8"), "no column"),
        (
            lambda folder: Image.new("L", (60, 48)).save(write_hit(folder) / "images" / "train" / "train1.png"),
            "others have",
        ),
    ],
    ids=["unknown class", "outside", "no area", "no picture", "unreadable", "no data", "no column", "another size"],
)
def test_bad_hit_uav_is_named(room, tmp_path, spoil, words):
    spoil(tmp_path)
    with pytest.raises(room.helper.DataError, match=words) as error:
        room.helper.load_hit_uav(tmp_path)
    assert "\n" not in str(error.value)


HIT_HEADER = ["split", "image", "class", "cx", "cy", "w", "h", "angle_deg"]


def write_small_hit(folder, first="a.png"):
    """A picture of 32x32 with one car for each split; the name of the training picture in boxes.csv is `first`."""
    rows = [[split, "a.png", "Car", 16, 16, 10, 5, 30] for split in ("train", "val", "test")]
    rows[0][1] = first
    for split, *_ in rows:
        (folder / "images" / split).mkdir(parents=True)
        (folder / "images" / split / "a.png").write_bytes(PNG)
    pd.DataFrame(rows, columns=HIT_HEADER).to_csv(folder / "boxes.csv", index=False)
    return rows


@pytest.mark.parametrize("nasty", PICTURES, ids=str)
def test_nasty_pictures(room, tmp_path, nasty):
    write_small_hit(tmp_path, nasty.name)
    nasty.write(tmp_path / "images" / "train")
    data = nasty.meets(lambda: room.helper.load_hit_uav(tmp_path))
    if data:
        assert data.train.images.dtype == np.uint8 and data.train.images.shape == (1, 32, 32, 1)
        assert np.abs(data.train.images[0, :, :, 0] / 255 - nasty.stored).max() < 0.05
        assert "1 files not read: a.png" in data.note, "a picture that the table does not list is named"


@pytest.mark.parametrize("name, there, meant", NAMES.values(), ids=NAMES)
def test_names_of_the_table_find_their_files(room, tmp_path, name, there, meant):
    write_small_hit(tmp_path, name)
    (tmp_path / "images" / "train" / "a.png").unlink()
    for path in by_name(tmp_path / "images" / "train", there):
        path.write_bytes(encode(LIGHT if path.name == meant else 255 - LIGHT, "PNG"))
    if meant in there:
        assert np.array_equal(room.helper.load_hit_uav(tmp_path).train.images[0, :, :, 0], LIGHT)
    else:
        with pytest.raises(room.helper.DataError, match=re.escape(meant)):
            room.helper.load_hit_uav(tmp_path)


@pytest.mark.parametrize("k", range(len(tables(["a", "b"], [[1, 2]]))))
def test_nasty_tables(room, tmp_path, k):
    nasty = tables(HIT_HEADER, write_small_hit(tmp_path), "boxes.csv")[k]
    nasty.write(tmp_path)
    data = nasty.meets(lambda: room.helper.load_hit_uav(tmp_path))
    if data:
        assert data.train.boxes[0].tolist() == [[16, 16, 10, 5, pytest.approx(PI / 6)]]


@pytest.mark.parametrize(
    "column, value, words",
    [
        ("split", "valid", "boxes.csv, line 3: unknown split 'valid'"),
        ("cx", "?", "boxes.csv, line 3, column 'cx': '.' is not a number"),
        ("class", "car", r"boxes.csv, a.png: unknown class car; known: Car"),
        ("angle_deg", "n/a", "has a value that is not a number"),
    ],
)
def test_guilty_cells_are_named(room, tmp_path, column, value, words):
    rows = write_small_hit(tmp_path)
    rows[1][HIT_HEADER.index(column)] = value
    pd.DataFrame(rows, columns=HIT_HEADER).to_csv(tmp_path / "boxes.csv", index=False)
    with pytest.raises(room.helper.DataError, match=words):
        room.helper.load_hit_uav(tmp_path)


def test_what_the_published_layout_leaves_out_is_counted(room, tmp_path):
    write_hit(tmp_path, "published")
    folder = tmp_path / "rotate_xml" / "Annotations"
    text = (folder / "train0.xml").read_text(encoding="utf-8")
    (folder / "other_day.XML").write_text(text.replace("20210116", "20210122"), encoding="utf-8")
    (folder / "walkers.xml").write_text(
        "<annotation><folder>20210116</folder><filename>w</filename></annotation>", encoding="utf-8"
    )
    (folder / "._train0.xml").write_bytes(bytes(9))
    data = room.helper.load_hit_uav(tmp_path)
    assert "1 pictures without a vehicle left out; 1 pictures of other days left out" in data.note
    assert data.counts()["train"] == 2
    (folder / "boats.xml").write_text(text.replace(">Car<", ">Boat<"), encoding="utf-8")
    with pytest.raises(room.helper.DataError, match=r"boats\.xml: unknown class Boat"):
        room.helper.load_hit_uav(tmp_path)


@needs("hit-uav")
def test_real_hit_uav(room):
    data = room.helper.load_hit_uav(REAL / "hit-uav", scale=0.25, limit=12)
    assert data.counts()["train"] == 12 and data.train.images.shape == (12, 128, 160, 1)
    table = pd.read_csv(REAL / "hit-uav" / "boxes.csv")
    with zipfile.ZipFile(REAL / "hit-uav" / "rotate_xml.zip") as archive:  # the published files say the same
        for file in archive.namelist()[:30]:
            if not file.endswith(".xml"):
                continue
            names, boxes, _, _ = room.helper.read_rolabelimg(archive.read(file), file)
            split, stem = file.split("/")[-2], Path(file).stem
            rows = table[(table.split == split) & (table.image == f"{stem}.webp")]
            assert rows["class"].tolist() == names
            listed = np.column_stack([rows[["cx", "cy", "w", "h"]], np.radians(rows["angle_deg"])])
            assert same_rectangles(room, torch.from_numpy(listed), torch.from_numpy(boxes), atol=0.05)


@needs("hit-uav")
def test_real_days_are_apart():
    table = pd.read_csv(REAL / "hit-uav" / "images.csv")
    days = table.groupby("split")["date"].unique().apply(set)
    assert not (days["train"] & days["test"] or days["train"] & days["val"] or days["val"] & days["test"])


# ---------------------------------------------------------------- the whole room


@pytest.mark.parametrize(
    "overrides, words",
    [
        ("scale=0.3", "setting scale=0.3: pictures of 640x512"),
        ("harbour_epochs=0", "setting harbour_epochs=0"),
        ("harbour_val=1", "setting harbour_val=1: at least 2"),
        ("batch_size=50", "setting batch_size=50: there are only"),
        ("harbour_train=60,batch_size=50", "setting batch_size=50: there are only hit_limit=6"),
        ("resamples=0", "setting resamples=0"),
        ("hit_limit=-1", "setting hit_limit=-1: at least 0"),
        ("hidden=0", "setting hidden=0: at least 1"),
        ("hit_crop=100", "setting hit_crop=100: a multiple of 32"),
        ("backbone=vgg", "setting backbone='vgg': known are"),
        ("lr=0.0", "setting lr=0.0"),
        ("hit_zoom=()", "setting hit_zoom=..: a least"),
        ("scale=0.0", "setting scale=0.0: between"),
        ("hit_zoom=(0.0,1.0)", "setting hit_zoom=.0.0, 1.0.: a least"),
        ("hit_zoom=(1.2,0.6)", "setting hit_zoom=.1.2, 0.6.: a least"),
    ],
)
def test_settings_that_cannot_work_are_named(room, start, overrides, words):
    start("tiny", overrides)
    with pytest.raises(room.lab.LabError, match=words):
        room.helper.check_settings(room.cfg)


@pytest.mark.parametrize("profile", ["tiny", "demo", "full"])
def test_settings_of_every_profile_pass(room, start, profile):
    room.helper.check_settings(start(profile).cfg)


def test_settings_that_do_not_fit_the_pictures_are_named(room, start, tmp_path):
    write_small_hit(tmp_path)
    scenes = room.helper.load_hit_uav(tmp_path)
    room.helper.check_fit(start("tiny", "batch_size=1").cfg, scenes)
    with pytest.raises(room.lab.LabError, match="batch_size=2: HIT-UAV has only 1 training pictures"):
        room.helper.check_fit(start("tiny", "batch_size=2").cfg, scenes)
    cfg = start("tiny", "batch_size=1").cfg
    with pytest.raises(room.lab.LabError, match="setting scale: HIT-UAV's pictures are 16x16"):
        room.helper.check_fit(cfg, room.helper.load_hit_uav(tmp_path, scale=0.5))
    scenes.val.ignore[0][:] = True
    with pytest.raises(room.helper.DataError, match="HIT-UAV: no object in the val part"):
        room.helper.check_fit(cfg, scenes)


def test_interval_of_a_difference_is_paired(room, start):
    start("demo", "resamples=200")
    part = room.helper.make_harbour(10, seed=2)
    noisy = room.noisy_detections(part, 0)
    judged = room.judge_all(noisy, part, (0.3,), overlap=room.outer_iou)
    same = room.estimate(room.minus(room.over_classes(judged), room.over_classes(judged)), part)
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0), "the same detector against itself"
    alone = room.estimate(room.over_classes(judged), part)
    assert alone["low"] < alone["value"] < alone["high"] and alone["n"] == 10
    assert room.draws_of(part).sum(1).tolist() == [10] * 200


def test_a_draw_without_a_class_is_left_out(room, start):
    """One dock in one of three pictures: a third of the pictures' weight decides whether its AP exists."""
    start("demo", "resamples=400")
    part = room.helper.make_harbour(3, seed=2)
    for k in (1, 2):  # ships only
        keep = part.labels[k] == 0
        part.boxes[k], part.labels[k], part.ignore[k] = part.boxes[k][keep], part.labels[k][keep], part.ignore[k][keep]
    assert (part.labels[0] == 1).any()
    mean = room.over_classes(room.judge_all(room.noisy_detections(part, 0), part, (0.3,), overlap=room.outer_iou))
    assert np.isnan(mean(np.array([0, 2, 1]))) and np.isfinite(mean(np.array([1, 0, 2])))
    without = (room.draws_of(part)[:, 0] == 0).mean()
    found = room.estimate(mean, part)
    assert found["interval"] == f"bootstrap, test pictures, {without:.0%} of the draws without a class left out"
    kept = [100 * mean(w) for w in room.draws_of(part) if w[0]]
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(kept, [2.5, 97.5]), abs=1e-9)


def test_a_class_with_few_wanted_objects_does_not_decide_the_mean(room):
    part = room.helper.make_harbour(20, seed=2)
    judged = room.judge_all(room.noisy_detections(part, 0), part, (0.3,), overlap=room.outer_iou)
    ships, docks = (np.ones(len(one.truth), dtype=bool) for one in judged)
    few = docks & (np.cumsum(docks) < room.FEWEST)  # one too few
    alone = room.precision_of(judged[0], "voc12", ships)
    assert room.over_classes(judged, wanted=[ships, few])(None) == alone
    enough = docks & (np.cumsum(docks) <= room.FEWEST)
    both = (alone + room.precision_of(judged[1], "voc12", enough)) / 2
    assert room.over_classes(judged, wanted=[ships, enough])(None) == pytest.approx(both)
    assert np.isnan(room.over_classes(judged, wanted=[ships & False, few])(None))


@pytest.mark.timeout(300)
def test_interrupted_training_goes_on(room, start, tmp_path):
    """Two epochs in one go, and one epoch, then a new start for the second: the same weights."""
    start("tiny", "batch_size=3")
    part = room.helper.make_harbour(6, seed=0)
    scenes = room.helper.Scenes("toy", "embedded", ["ship", "dock"], part, part, part)

    def build():
        torch.manual_seed(1)
        return room.RotatedRetinaNet(room.Backbone("resnet18", 8, 8), room.AnchorForm(), 2)

    recipe = room.Recipe(2, 1e-3, 3)
    whole, _ = room.train("whole", build(), scenes, recipe)

    class Stop(Exception):
        pass

    original, calls = room.train_epoch, []

    def once(*arguments):
        if calls:
            raise Stop
        calls.append(1)
        return original(*arguments)

    room.train_epoch = once
    try:
        with pytest.raises(Stop):
            room.train("broken", build(), scenes, recipe)
    finally:
        room.train_epoch = original
    again, history = room.train("broken", build(), scenes, recipe)
    assert len(history) == 2
    for ours, theirs in zip(again.state_dict().values(), whole.state_dict().values()):
        assert_close(ours, theirs)


def test_room_stands_alone_as_a_script(tmp_path):
    """Copied out alone, its notebook is a program that stops with one clear line where real data is missing."""
    shutil.copytree(ROOM, tmp_path / "room", ignore=shutil.ignore_patterns("results", "runs", "__pycache__"))
    convert = [sys.executable, "-m", "nbconvert", "--to", "script", "code.ipynb", "--output", "main"]
    subprocess.run(convert, cwd=tmp_path / "room", check=True, capture_output=True)
    next((tmp_path / "room").glob("main.*")).rename(tmp_path / "room" / "main.py")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NNDL_")}
    environment |= {"NNDL_PROFILE": "full", "NNDL_SET": "harbour_train=4,harbour_val=2,harbour_test=2"}
    environment |= {"ACCELERATE_USE_CPU": "true", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path / "room", env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode != 0 and "profile full needs real data: no folder" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "room").rglob("record.json"))
