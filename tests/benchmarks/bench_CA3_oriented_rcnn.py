"""CA3_oriented_rcnn: overlap, suppression and pooling beside OpenCV, shapely and torchvision, on the same boxes."""

import time

import cv2
import pytest
import shapely
import torch
from torchvision.ops import box_iou, nms, roi_align

from nndl import rooms
from nndl.notebooks import load_definitions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = (100, 1000, 5000)
SPREADS = {"all overlap": 15, "spread": 2000}  # side of the square in which the centres lie
FASTER = {"cpu": {"all overlap": 3, "spread": 20}, "cuda": {"all overlap": 100, "spread": 100}}[DEVICE]


@pytest.fixture(scope="module")
def room():
    return load_definitions(rooms.ROOT / "CA3_oriented_rcnn" / "code.ipynb")


def boxes_of(room, n, spread, seed):
    side = SPREADS[spread] * (1 if spread == "all overlap" else (n / 1000) ** 0.5)  # as dense, however many
    return room.spread_boxes(n, side, seed).to(DEVICE)


def done(result):
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return result


def shapely_overlap(room, a, b):
    """Areas of all intersections, vectorised by shapely."""
    a, b = (shapely.polygons(room.corners(boxes.double().cpu()).numpy()) for boxes in (a, b))
    return shapely.area(shapely.intersection(a[:, None], b))


@pytest.mark.parametrize("who", ["ours", "OpenCV loop", "shapely", "torchvision, upright"])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", SIZES)
def test_overlap(benchmark, room, n, spread, who):
    if n > 1000 and (who in ("OpenCV loop", "shapely") or spread == "all overlap"):
        pytest.skip("25 million pairs that overlap take this one minutes")
    a, b = boxes_of(room, n, spread, 0), boxes_of(room, n, spread, 1)
    work = {
        "ours": lambda: done(room.rotated_iou(a, b)),
        "OpenCV loop": lambda: room.opencv_overlap(a, b),
        "shapely": lambda: shapely_overlap(room, a, b),
        "torchvision, upright": lambda: done(box_iou(room.outer_boxes(a), room.outer_boxes(b))),
    }[who]
    benchmark.group, benchmark.name = f"overlap of {n} x {n}, {spread}, {DEVICE}", who
    benchmark.pedantic(work, rounds=1 if n >= 1000 else 3, warmup_rounds=int(n < 1000 or who == "ours"))


def opencv_suppression(room, boxes, scores, threshold):
    return cv2.dnn.NMSBoxesRotated(room.to_opencv(boxes), scores.tolist(), 0.0, threshold)


@pytest.mark.parametrize("who", ["ours", "OpenCV", "torchvision, upright"])
@pytest.mark.parametrize("n", SIZES)
def test_suppression(benchmark, room, n, who):
    boxes, scores = boxes_of(room, n, "spread", 2), torch.rand(n, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    work = {
        "ours": lambda: done(room.rotated_nms(boxes, scores, 0.3)),
        "OpenCV": lambda: opencv_suppression(room, boxes, scores, 0.3),
        "torchvision, upright": lambda: done(nms(room.outer_boxes(boxes), scores, 0.3)),
    }[who]
    if who == "OpenCV" and not hasattr(cv2.dnn, "NMSBoxesRotated"):
        pytest.skip("this OpenCV has no NMSBoxesRotated")
    benchmark.group, benchmark.name = f"suppression of {n}, {DEVICE}", who
    benchmark.pedantic(work, rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("who", ["ours", "torchvision, upright"])
@pytest.mark.parametrize("n", SIZES)
def test_pooling(benchmark, room, n, who):
    features = torch.randn(2, 64, 128, 160, device=DEVICE)
    rois = torch.cat([torch.arange(n, device=DEVICE)[:, None] % 2.0, room.spread_boxes(n, 500, 4).to(DEVICE)], 1)
    upright = torch.cat([rois[:, :1], room.outer_boxes(rois[:, 1:])], 1)
    pool = room.RotatedRoIAlign(7, 0.25, 2)
    work = {
        "ours": lambda: done(pool(features, rois)),
        "torchvision, upright": lambda: done(roi_align(features, upright, 7, 0.25, 2, aligned=True)),
    }[who]
    benchmark.group, benchmark.name = f"pooling of {n} boxes, {DEVICE}", who
    benchmark.pedantic(work, rounds=3, warmup_rounds=1)


def best_seconds(function, rounds=3):
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


@pytest.mark.parametrize("spread", SPREADS)
def test_overlap_is_faster_than_an_opencv_loop(room, spread):
    a, b = boxes_of(room, 1000, spread, 0), boxes_of(room, 1000, spread, 1)
    done(room.rotated_iou(a, b))
    ours, loop = (
        best_seconds(lambda: done(room.rotated_iou(a, b))),
        10 * best_seconds(lambda: room.opencv_overlap(a[:100], b)),
    )
    print(f"{spread}: ours {ours:.3f} s, OpenCV loop {loop:.2f} s, {loop / ours:.0f} times faster")
    assert loop / ours > FASTER[spread]


def test_suppression_of_5000_takes_less_than_a_second(room):
    boxes, scores = boxes_of(room, 5000, "spread", 2), torch.rand(5000).to(DEVICE)
    seconds = best_seconds(lambda: done(room.rotated_nms(boxes, scores, 0.3)))
    print(f"suppression of 5000 boxes: {seconds:.3f} s")
    assert seconds < 1
