"""Data and drawing for the segmentation assignment: no model, no loss, no method.

A picture is uint8 (H, W, 3), its mask uint8 (H, W): the index of a class in CLASSES, or VOID where nobody has labelled.
Pictures come in video sequences whose pictures look alike, so the parts for training and choosing share no sequence.
"""

import colorsys
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from nndl import files
from nndl.figures import (  # noqa: F401 (notebooks take them from here)
    BLUE,
    COLOURS,
    GREY,
    finish,
    show_confusion,
    show_lines,
    style,
)
from nndl.files import DataError
from nndl.records import LabError

CLASSES = ["sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian",
           "bicyclist"]  # fmt: skip
VOID = len(CLASSES)
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(VOID)
PALETTE = np.array([(135, 206, 235), (170, 60, 50), (250, 230, 120), (128, 100, 140), (244, 150, 200), (60, 140, 40),
                    (255, 140, 0), (150, 105, 60), (40, 60, 200), (230, 20, 60), (0, 190, 170), (0, 0, 0)],
                   np.uint8)  # fmt: skip


class Scenes(NamedTuple):
    """Pictures of one part: images (N, H, W, 3) uint8, masks (N, H, W) uint8, sequence and file name of each."""

    images: np.ndarray
    masks: np.ndarray
    sequences: np.ndarray
    names: np.ndarray

    def take(self, index):
        """The scenes of an index or a mask."""
        return Scenes(*(array[index] for array in self))


def join(*scenes):
    """Several Scenes of one size as one, in this order."""
    return Scenes(*(np.concatenate(arrays) for arrays in zip(*scenes, strict=True)))


@dataclass
class Streets:
    """A data set: parts for training, choosing and testing, and one that is only looked at, where there is one."""

    name: str
    source: str  # "real" or "embedded"
    train: Scenes
    val: Scenes
    test: Scenes
    extra: Scenes | None = None  # the published validation part: out of the middle of a training sequence
    note: str = ""

    def parts(self):
        """{name: Scenes} of the parts that are there."""
        parts = {"train": self.train, "val": self.val, "test": self.test, "extra": self.extra}
        return {name: part for name, part in parts.items() if part is not None}

    def counts(self):
        """Number of pictures in each part."""
        return {name: len(part.names) for name, part in self.parts().items()}

    def arrays(self):
        """All arrays in a fixed order, for fingerprints."""
        return [array for part in self.parts().values() for array in part]


def class_shares(masks):
    """Share of pixels of each class, and of VOID at the end: (12,), the sum is 1."""
    return np.bincount(masks.ravel(), minlength=VOID + 1) / masks.size


# ---------------------------------------------------------------- embedded: drawn streets

# A street is a list of things in metres: x to the right of the road's middle, y up, z ahead of the first picture. A
# thing has faces, each of one colour and one class; contours of one face cut holes into each other.

SCALE = 3  # drawn so many times larger; the middle one of 3 x 3 pixels gives the class
NEAR, FAR = 1.0, 140.0
FRAMES = 8  # pictures of one sequence
GRAIN = np.array([1, 6, 4, 3, 4, 12, 3, 6, 3, 4, 4, 4], np.float32)  # noise of each class's surface, in grey levels


class Thing(NamedTuple):
    """What stands in a street: layer (0 is drawn first), z of its near end, metres a picture, faces."""

    layer: int
    z: float
    speed: float
    faces: list  # (colour, class, [contours (n, 3)])


def paint(rng, hue=(0, 1), saturation=(0, 0.9), value=(0.2, 0.95)):
    """A random colour: RGB in 0 to 255."""
    return 255 * np.array(colorsys.hsv_to_rgb(*(rng.uniform(*span) for span in (hue, saturation, value))))


def facing(points, x, z):
    """A contour that faces the camera: (x, y) about a place -> (n, 3)."""
    return [(x + dx, y, z) for dx, y in points]


def along(points, x, z):
    """A contour that runs along the road: (z, y) about a place -> (n, 3)."""
    return [(x, y, z + dz) for dz, y in points]


def box(left, right, low, high):
    """The corners of a rectangle."""
    return [(left, low), (right, low), (right, high), (left, high)]


def disc(x, y, radius, n=12):
    """The corners of a regular polygon."""
    angles = 2 * np.pi / n * np.arange(n)
    return list(zip((x + radius * np.cos(angles)).tolist(), (y + radius * np.sin(angles)).tolist()))


def strip(left, right):
    """A contour on the ground along the whole road; in short pieces, so that it can bend."""
    z = np.concatenate([np.geomspace(NEAR, FAR, 14), [FAR + 20]])
    return [(left, 0, d) for d in z] + [(right, 0, d) for d in z[::-1]]


def ground(rng, road, walks):
    """The road with its marks, a pavement on each side and what lies behind: a Thing."""
    grey = rng.uniform(75, 135) + rng.normal(0, 4, 3)
    faces = []
    for s, walk in zip((-1, 1), walks):
        grass = rng.random() < 0.5
        colour = paint(rng, (0.2, 0.33), (0.25, 0.6), (0.3, 0.5)) if grass else grey + rng.uniform(-10, 40)
        faces.append((colour, TREE if grass else PAVEMENT, [strip(s * (road + walk), s * 60)]))
        stone = grey + rng.uniform(-15, 45) + rng.normal(0, 5, 3)
        faces.append((stone, PAVEMENT, [strip(s * road, s * (road + walk))]))
        faces.append((stone * 0.7, PAVEMENT, [strip(s * road, s * (road + 0.15))]))  # the kerb
    faces.append((grey, ROAD, [strip(-road, road)]))
    for x in rng.uniform(-road, road, 3):  # repaired strips
        faces.append((grey * rng.uniform(0.85, 1.1), ROAD, [strip(x, x + rng.uniform(0.3, 1.2))]))
    faces.append((grey, ROAD, [strip(road - 0.02, road)]))
    white, start = rng.uniform(190, 240), rng.uniform(0, 5)
    dashes = [[(-0.07, 0, z), (0.07, 0, z), (0.07, 0, z + 2.5), (-0.07, 0, z + 2.5)] for z in start + 5 * np.arange(14)]
    faces.append((np.full(3, white), ROAD, dashes))
    if rng.random() < 0.5:
        yellow = white * np.array([1, 0.85, 0.3])
        faces += [(yellow, ROAD, [strip(s * (road - 0.3), s * (road - 0.2))]) for s in (-1, 1)]
    if rng.random() < 0.4:  # a zebra crossing
        z = rng.uniform(12, 30)
        bars = [[(x, 0, z), (x + 0.5, 0, z), (x + 0.5, 0, z + 3), (x, 0, z + 3)] for x in np.arange(-road, road - 0.4)]
        faces.append((np.full(3, white), ROAD, bars))
    return Thing(0, 0, 0, faces)


def building(rng, x, z, length):
    """A house with its front along the road: gable or flat roof, windows, often a shop: a Thing."""
    out, height, storey = 8 * np.sign(x), rng.uniform(6, 14), rng.uniform(2.6, 3.4)
    tone = paint(rng, (0.02, 0.13), (0.05, 0.55), (0.35, 0.85)) if rng.random() < 0.8 else paint(rng, (0, 1), (0, 0.2))
    glass = paint(rng, (0.5, 0.65), (0, 0.3), (0.1, 0.75))
    side = [along(box(0, length, 0, height), x, z)]
    faces = [(tone * rng.uniform(0.6, 0.85), BUILDING, [facing(box(0, out, 0, height), x, z)]), (tone, BUILDING, side)]
    if rng.random() < 0.6:
        roof = [(x, height, z), (x, height, z + length), (x + out / 2, height + 2.5, z + length),
                (x + out / 2, height + 2.5, z)]  # fmt: skip
        gable = [(x, height, z), (x + out, height, z), (x + out / 2, height + 2.5, z)]
        faces += [(tone * 0.7, BUILDING, [gable]), (paint(rng, (0, 0.1), (0, 0.4), (0.2, 0.5)), BUILDING, [roof])]
    wide, every = rng.uniform(0.8, 1.6), rng.uniform(2.2, 3.2)
    shop = rng.random() < 0.4
    windows = [along(box(a, a + wide, b, b + 1.5), x, z) for a in np.arange(0.8, length - wide, every)
               for b in np.arange(0.9 + storey * shop, height - 1.6, storey)]  # fmt: skip
    if windows and z < 50:  # further away they are smaller than a pixel
        faces.append((glass, BUILDING, windows))
    if shop:
        band, pane = box(0, length, 2.3, 3), [box(a, a + 2.2, 0.5, 2.2) for a in np.arange(0.4, length - 2.2, 2.7)]
        faces.append((paint(rng), BUILDING, [along(band, x, z)]))
        faces.append((glass * 0.7, BUILDING, [along(corners, x, z) for corners in pane]))
    return Thing(1, z, 0, faces)


def tree(rng, x, z, tall=True):
    """A tree of many discs over a trunk, or a bush: a Thing."""
    size = rng.uniform(1.3, 2.3) if tall else rng.uniform(0.5, 1)
    middle = rng.uniform(3.4, 5) if tall else size * 0.6
    leaves = paint(rng, (0.13, 0.36), (0.2, 0.6), (0.25, 0.55))
    bark = paint(rng, (0.05, 0.1), (0.1, 0.5), (0.15, 0.35))
    faces = [(bark, TREE, [facing(box(-0.17, 0.17, 0, middle), x, z)])] if tall else []
    for k in range(9):
        dx, dy = rng.normal(0, 0.5 * size, 2)
        crown = disc(dx, max(middle + dy, 0.3), size * rng.uniform(0.35, 0.7), 9)
        faces.append((leaves * (0.65 + 0.07 * k + rng.uniform(-0.1, 0.1)), TREE, [facing(crown, x, z)]))
    return Thing(3, z, 0, faces)


def fence(rng, x, z, length):
    """A fence or railing along the road: wood, iron or green: a Thing."""
    height = rng.uniform(0.9, 1.7)
    tone = paint(rng, (0.06, 0.38), (0.1, 0.55), (0.25, 0.65))
    slats = [along(box(a, a + 0.12, 0, height), x, z) for a in np.arange(0.3, length, max(0.5, length / 25))]
    rail = along(box(0, length, height - 0.15, height), x, z)
    wall = along(box(0, length, 0, height), x, z)
    faces = [(tone, FENCE, [wall]), (tone * 0.75, FENCE, slats), (tone * 1.15, FENCE, [rail])]
    return Thing(2, z, 0, faces)


def pole(rng, x, z):
    """A street lamp, or a mast with a traffic light: a Thing."""
    tone, wide = paint(rng, (0.2, 0.6), (0, 0.3), (0.2, 0.65)), rng.uniform(0.05, 0.085)
    height, arm = rng.uniform(4.5, 7.5), -np.sign(x) * rng.uniform(0.8, 1.8)
    faces = [(tone, POLE, [facing(box(-wide, wide, 0, height), x, z)])]
    if rng.random() < 0.35:
        light = [(np.full(3, 30.0), SIGN, [facing(box(-0.22, 0.22, 2.4, 3.4), x, z)])]
        lamp, y = [((230, 40, 30), 3.2), ((40, 210, 90), 2.55)][rng.integers(2)]
        return Thing(3, z, 0, [*faces, *light, (np.array(lamp), SIGN, [facing(disc(0, y, 0.14), x, z)])])
    faces.append((tone, POLE, [facing(box(min(0, arm), max(0, arm), height - 0.1, height), x, z)]))
    return Thing(3, z, 0, faces)


def sign(rng, x, z):
    """A traffic sign on its pole: round, triangular or square, with a rim: a Thing."""
    size, high, tone = rng.uniform(0.4, 0.62), rng.uniform(2.1, 2.9), paint(rng, (0, 1), (0, 0.1), (0.3, 0.7))
    rim = [np.array(c) for c in ((205, 35, 35), (30, 70, 170), (225, 190, 40), (30, 110, 60))][rng.integers(4)]
    corners, way = [(12, 1), (3, -1), (3, 1), (4, 1)][rng.integers(4)]
    plate = [disc(0, high, radius, corners) for radius in (size, 0.68 * size)]
    plate = [[(y - high, high + way * dx) for dx, y in shape] for shape in plate]  # a point is up, or down
    faces = [(tone, POLE, [facing(box(-0.045, 0.045, 0, high), x, z)]), (rim, SIGN, [facing(plate[0], x, z)]),
             (np.full(3, rng.uniform(200, 245)), SIGN, [facing(plate[1], x, z)])]  # fmt: skip
    return Thing(3, z, 0, faces)


def car(rng, x, z, speed=0.0):
    """A car, van or bus seen from behind or in front, with the side that shows: a Thing."""
    kind = rng.random()
    wide, high, long = (1.75, 1.5, 4.3) if kind < 0.75 else (1.9, 2.2, 5) if kind < 0.92 else (2.4, 3, 9)
    half, tone = wide / 2, paint(rng, saturation=(0, rng.choice((0.15, 0.15, 0.9))), value=(0.1, 0.95))
    glass, dark = paint(rng, (0.5, 0.65), (0, 0.3), (0.1, 0.45)), np.full(3, rng.uniform(15, 40))
    waist = 0.92 if high < 2 else high * 0.55
    near, slope = (0.5, 0.8) if high < 2 else (0.05, 0.05)
    shown = x - half if x > -1.2 else x + half
    profile = [(0, 0.25), (long, 0.25), (long, waist), (long - slope, high), (near, high), (0, waist)]
    panes = [(long - slope - 0.2, waist), (long - slope - 0.3, high - 0.15), (near + 0.25, high - 0.15), (0.35, waist)]
    wheels = [along(disc(d, 0.32, 0.32), shown, z) for d in (0.8, long - 0.8)]
    cabin = [*box(-half, half, waist - 0.2, waist)[:3], (half * 0.8, high), (-half * 0.8, high), (-half, waist)]
    screen = [(-half * 0.84, waist + 0.06), (half * 0.84, waist + 0.06), (half * 0.7, high - 0.12),
              (-half * 0.7, high - 0.12)]  # fmt: skip
    lamps = [facing(box(s * half - 0.15, s * half + 0.15, 0.62, 0.78), x - s * 0.17, z) for s in (-1, 1)]
    lamp = np.array((190, 30, 30)) if rng.random() < 0.6 else np.full(3, 235.0)
    shadow = [(x - half - 0.1, 0, z - 0.25), (x + half + 0.1, 0, z - 0.25), (x + half + 0.1, 0, z + long),
              (x - half - 0.1, 0, z + long)]  # fmt: skip
    tyres = [facing(box(s * half * 0.75 - 0.13, s * half * 0.75 + 0.13, 0, 0.35), x, z) for s in (-1, 1)]
    faces = [(dark, ROAD, [shadow]), (tone * 0.8, CAR, [along(profile, shown, z)]),
             (glass * 0.8, CAR, [along(panes, shown, z)]), (dark, CAR, wheels), (dark, CAR, tyres),
             (tone * 0.9, CAR, [facing(cabin, x, z + 0.1)]), (glass, CAR, [facing(screen, x, z + 0.05)]),
             (tone, CAR, [facing(box(-half, half, 0.25, waist), x, z)]), (lamp, CAR, lamps),
             (tone * 0.6, CAR, [facing(box(-half, half, 0.25, 0.42), x, z)])]  # fmt: skip
    return Thing(3, z, speed, faces)


def person(rng, x, z, lift=0.0, label=PEDESTRIAN):
    """The faces of a person who stands, walks or sits on something."""
    tall, step = rng.uniform(1.55, 1.9) * (1 if lift else rng.choice((1, 1, 1, 0.65))), rng.uniform(0.03, 0.25)
    skin, coat = paint(rng, (0.03, 0.09), (0.2, 0.55), (0.35, 0.9)), paint(rng)
    hips, neck, wide = 0.5 * tall, 0.84 * tall, 0.135 * tall

    def up(points):
        return facing([(dx, y + lift) for dx, y in points], x, z)

    low = 0.25 * tall if lift else 0
    legs = [[(s * 0.1 - 0.1, hips), (s * 0.1 + 0.1, hips), (s * step + 0.08, low), (s * step - 0.1, low)]
            for s in (-1, 1)]  # fmt: skip
    trousers = paint(rng, saturation=(0, 0.6), value=(0.1, 0.5))
    torso = [(-wide * 0.8, hips - 0.05), (wide * 0.8, hips - 0.05), (wide, neck), (-wide, neck)]
    arms = [[(s * wide, neck), (s * (wide + 0.12), neck - 0.1), (s * (wide + 0.14), hips), (s * (wide + 0.04), hips)]
            for s in (-1, 1)]  # fmt: skip
    head = disc(0, 0.925 * tall, 0.075 * tall)
    hair = disc(0, 0.95 * tall, 0.07 * tall)
    return [*((trousers, label, [up(leg)]) for leg in legs), (coat, label, [up(torso)]),
            (coat * 0.8, label, [up(arm) for arm in arms]), (skin * rng.uniform(0.2, 0.7), label, [up(hair)]),
            (skin, label, [up(head)])]  # fmt: skip


def pedestrian(rng, x, z):
    """One person or two: a Thing."""
    faces = person(rng, x, z)
    if rng.random() < 0.35:
        faces = person(rng, x + rng.uniform(0.5, 0.8), z + 0.2) + faces
    return Thing(3, z, rng.uniform(-0.25, 0.25), faces)


def bicyclist(rng, x, z, speed):
    """A person on a bicycle, seen along or across it: a Thing."""
    dark, frame = np.full(3, rng.uniform(20, 60)), paint(rng)
    if rng.random() < 0.5:
        wheel, bar = box(-0.06, 0.06, 0, 0.68), box(-0.3, 0.3, 1.0, 1.08)
        faces = [(dark, BICYCLIST, [facing(wheel, x, z)]), (frame, BICYCLIST, [facing(bar, x, z)])]
    else:
        rings = [[facing(disc(s * 0.5, 0.34, r, 14), x, z) for r in (0.36, 0.24)] for s in (-1, 1)]
        faces = [(dark, BICYCLIST, ring) for ring in rings]
        bars = [[(-0.5, 0.3), (-0.45, 0.42), (0.4, 0.92), (0.45, 0.82)], [(0.5, 0.3), (0.4, 0.3), (0.3, 1), (0.42, 1)]]
        faces += [(frame, BICYCLIST, [facing(bar, x, z)]) for bar in bars]
    return Thing(3, z, speed, faces + person(rng, x, z, 0.1, BICYCLIST))


def unlabelled(rng, x, z):
    """A bin, a skip or a stack of goods that is of no class: a Thing."""
    wide, high = (rng.uniform(0.25, 0.4), rng.uniform(0.8, 1.2)) if rng.random() < 0.65 else (0.9, rng.uniform(1, 1.6))
    tone = paint(rng, value=(0.15, 0.7))
    lid = box(-wide * 1.1, wide * 1.1, high * 0.88, high)
    return Thing(3, z, 0, [(tone, VOID, [facing(box(-wide, wide, 0, high), x, z)]),
                           (tone * 0.75, VOID, [facing(lid, x, z)])])  # fmt: skip


def one_side(rng, s, road, walk):
    """What stands along the left (s=-1) or right (s=1): houses, trees, fences, furniture, cars: a list of Things."""
    edge, things, z = road + walk, [], rng.uniform(-12, 0)
    back = edge + rng.choice((0.0, 0.0, rng.uniform(1, 4)))  # houses stand behind a front garden, or do not
    while z < 85:
        length = rng.uniform(6, 16)
        if rng.random() < 0.78:
            things.append(building(rng, s * back, z, length))
        else:
            things += [tree(rng, s * (edge + rng.uniform(1.5, 6)), d) for d in z + np.arange(2, length, 3.2)]
        fenced = any(thing.layer == 2 and thing.z > 8 for thing in things)
        if back > edge or things[-1].layer == 3 or (z > 8 and not fenced):
            things.append(fence(rng, s * edge, z, length * rng.uniform(0.6, 1)))
        z += length
    inner, outer = road + 0.35, edge - 0.35
    things += [pole(rng, s * inner, d) for d in rng.uniform(7, 22) + rng.uniform(15, 22) * np.arange(3)]
    things += [sign(rng, s * inner, d) for d in rng.uniform(7, 20) + rng.uniform(9, 15) * np.arange(4)]
    places = rng.uniform(8, 18) + rng.uniform(7, 11) * np.arange(4)
    things += [pedestrian(rng, s * rng.uniform(inner, outer), d) for d in places]
    things += [unlabelled(rng, s * outer, d) for d in rng.uniform(5, 12) + rng.uniform(6, 11) * np.arange(5)]
    if rng.random() < 0.4:
        things += [tree(rng, s * outer, d) for d in rng.uniform(9, 16) + rng.uniform(9, 14) * np.arange(4)]
    if rng.random() < 0.5:
        things += [car(rng, s * (road - 1), d) for d in rng.uniform(9, 18) + rng.uniform(6, 12) * np.arange(4)]
    return things


def backdrop(rng):
    """What closes the street far ahead: houses, trees, and a strip of no class: a Thing."""
    faces = []
    for x in np.arange(-110, 110, 12):
        high, place = rng.uniform(3, 13), x + rng.uniform(0, 6)
        if rng.random() < 0.5:
            shape, label = box(-8, 8, 0, high), BUILDING
            tone = paint(rng, (0.02, 0.13), (0.05, 0.4), (0.35, 0.8))
        else:
            shape, label = [(dx, max(y, 0)) for dx, y in disc(0, high / 2, 8)], TREE
            tone = paint(rng, (0.15, 0.36), (0.2, 0.5), (0.25, 0.45))
        faces.append((tone, label, [facing(shape, place, FAR - 10)]))
    x = rng.uniform(-20, 20)
    faces.append((paint(rng, saturation=(0, 0.3)), VOID, [facing(box(-9, 9, 0, 2.5), x, FAR - 12)]))
    return Thing(1, FAR, 0, faces)


def make_street(rng):
    """One street with all that stands in it, its camera and its light: a dict."""
    road, walks = rng.uniform(3.2, 4.8), rng.uniform(1.9, 3.9, 2)
    pace, lane = rng.uniform(0.7, 1.6), -rng.uniform(0.9, road - 1.9)
    things = [ground(rng, road, walks), backdrop(rng)]
    for s, walk in zip((-1, 1), walks):
        things += one_side(rng, s, road, walk)
    things.append(car(rng, lane + rng.normal(0, 0.2), rng.uniform(11, 28), pace * rng.uniform(0.9, 1.3)))
    things += [car(rng, road / 2, z, -pace * rng.uniform(0, 1)) for z in rng.uniform(16, 30) + np.array([0, 22])]
    for k, s in enumerate(rng.choice((-1, 1), 3)):
        x, z = s * rng.uniform(0.5, 0.95) * road, rng.uniform(9, 15) + 12 * k
        things.append(bicyclist(rng, x, z, pace * rng.uniform(0.4, 1)))
    camera = dict(lane=lane, pace=pace, sway=rng.normal(0, 0.06), bend=rng.normal(0, 0.0015), turn=rng.normal(0, 0.05),
                  pitch=rng.uniform(0.46, 0.55), high=rng.uniform(1.25, 1.6))  # fmt: skip
    return camera | light_of(rng, road) | dict(flat=flatten(things), ground=len(things[0].faces))


def light_of(rng, road):
    """The light by day or at dusk: colours of the sky at top and horizon, brightness, shade, noise: a dict."""
    if rng.random() < 0.25:
        top, low = paint(rng, (0.6, 0.7), (0.2, 0.5), (0.4, 0.7)), np.array((250.0, 190, 140))
        shade, light = None, rng.uniform(0.5, 0.75)
    else:
        top, low = paint(rng, (0.55, 0.62), (0.05, 0.55), (0.7, 1)), rng.uniform(185, 255) - rng.uniform(0, 12, 3)
        shade = rng.choice((-1, 1)) * np.array([1, rng.uniform(-0.5, 0.7)]) * road  # one side lies in shadow
        light = rng.uniform(0.7, 1.15)
    return dict(top=top, low=low, shade=shade, light=light * (1 + rng.normal(0, 0.05, 3)), noise=rng.uniform(2, 6))


def flatten(things):
    """Things as arrays, once for all pictures of a street: a dict.

    points (n, 3) and their speeds; where contours end and whose they are; colour, class and thing of each face.
    """
    faces = [(*face, k) for k, thing in enumerate(things) for face in thing.faces]
    contours = [(np.array(part, float), number) for number, face in enumerate(faces) for part in face[2]]
    owner, lengths = np.array([number for _, number in contours]), [len(part) for part, _ in contours]
    colours, labels, thing = (np.array([face[k] for face in faces]) for k in (0, 1, 3))
    layer, z, speed = (np.array([thing[k] for thing in things]) for k in range(3))
    return dict(points=np.concatenate([part for part, _ in contours]), speeds=np.repeat(speed[thing[owner]], lengths),
                ends=np.cumsum([0, *lengths]), owner=owner, colours=colours, labels=labels, thing=thing, z=z,
                speed=speed, layer=layer)  # fmt: skip


def project(street, frame, points, size):
    """Points in a street (n, 3) as a camera sees them at one frame: pixels (n, 2) of the enlarged picture, int32."""
    height, width = size
    x, y, z = points.T
    z = np.maximum(z - frame * street["pace"], NEAR)
    focal = 0.85 * width
    across = (x - street["lane"] - frame * street["sway"]) / z + street["turn"] + street["bend"] * z
    u, v = width / 2 + focal * across, street["pitch"] * height - focal * (y - street["high"]) / z
    return np.stack([SCALE * u, SCALE * v], axis=1).clip(-20_000, 20_000).round().astype(np.int32)


def seen_faces(street, frame, size):
    """What each pixel of the enlarged picture shows: its row where it is sky, else rows + the face's number: uint16."""
    flat, (rows, columns) = street["flat"], (SCALE * side for side in size)
    index = np.repeat(np.arange(rows, dtype=np.uint16)[:, None], columns, axis=1)
    corners = project(street, frame, flat["points"] + frame * flat["speeds"][:, None] * (0, 0, 1), size)
    low, high = (f.reduceat(corners, flat["ends"][:-1]) for f in (np.minimum, np.maximum))
    ahead = flat["z"] + frame * (flat["speed"] - street["pace"])
    there = (ahead > NEAR) | (flat["layer"] < 3)  # what has fallen behind the camera is gone
    thing = flat["thing"][flat["owner"]]
    kept = np.flatnonzero((high >= 0).all(1) & (low < (columns, rows)).all(1) & (high > low).any(1) & there[thing])
    kept = kept[np.lexsort((-ahead[thing[kept]], flat["layer"][thing[kept]]))]  # far things first, layer by layer
    contours, ends = {}, flat["ends"]
    for k, face in zip(kept.tolist(), flat["owner"][kept].tolist()):
        contours.setdefault(face, []).append(corners[ends[k] : ends[k + 1]])
    for face, parts in contours.items():
        cv2.fillPoly(index, parts, rows + face)
    return index


def draw_faces(street, frame, size):
    """The picture before light and noise, and its classes: (H, W, 3) float32 and (H, W) uint8."""
    flat, index = street["flat"], seen_faces(street, frame, size)
    rows = len(index)
    ahead = (flat["z"] - frame * street["pace"])[flat["thing"]].clip(0)
    haze = np.where(flat["layer"][flat["thing"]] > 0, 1 - np.exp(-ahead / 160), 0)[:, None]
    faces = flat["colours"] + haze * (street["low"] - flat["colours"])
    down = np.linspace(0, 1 / street["pitch"], rows)[:, None].clip(0, 1)
    sky = (1 - down) * street["top"] + down * street["low"]
    labels = np.concatenate([np.full(rows, SKY), flat["labels"]]).astype(np.uint8)
    mask = labels[index[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]]
    if street["shade"] is not None:
        edge = project(street, frame, np.array(strip(*street["shade"])), size)
        shade = cv2.fillPoly(np.zeros(index.shape, np.uint16), [edge], len(faces))
        index += shade * ((index >= rows) & (index < rows + street["ground"]))
    colours = np.concatenate([sky, faces, 0.6 * faces[: street["ground"]]]).clip(0, 255).astype(np.uint8)
    four = np.hstack([colours, colours[:, :1]]).view(np.uint32)[:, 0]  # one number a pixel is looked up faster
    large = four[index].view(np.uint8).reshape(*index.shape, 4)
    return cv2.resize(large, size[::-1], interpolation=cv2.INTER_AREA)[..., :3].astype(np.float32), mask


def draw_scene(rng, street, frame, size):
    """One picture of a street and its mask: (H, W, 3), (H, W) uint8."""
    picture, mask = draw_faces(street, frame, size)
    spots = rng.standard_normal((size[0] // 8 + 2, size[1] // 8 + 2), dtype=np.float32)
    spots = cv2.resize(spots, size[::-1], interpolation=cv2.INTER_CUBIC)
    fine = rng.standard_normal(mask.shape, dtype=np.float32)
    picture *= (1 + 0.06 * spots + fine * (GRAIN / 110)[mask])[..., None] * np.float32(street["light"])
    picture += np.float32(street["noise"]) * rng.standard_normal(picture.shape, dtype=np.float32)
    return picture.clip(0, 255).astype(np.uint8), mask


def make_scenes(count, part, seed, size):
    """So many drawn scenes in sequences of FRAMES: Scenes. part: its name begins the sequences' names."""
    rows = []
    for k in range(count):
        number, frame = divmod(k, FRAMES)
        if frame == 0:
            rng, name = np.random.default_rng([seed, *part.encode(), number]), f"{part}{number:03d}"
            street = make_street(rng)
        rows.append((*draw_scene(rng, street, frame, size), name, f"{name}_{frame:03d}.png"))
    return Scenes(*map(np.array, zip(*rows)))


def load_embedded(size=(96, 128), counts=(160, 48, 80), seed=0):
    """Drawn streets with CamVid's classes: sequences of eight pictures of one street, each street in one part alone.

    size: (H, W); counts: pictures for training, choosing and testing.
    """
    names = zip(counts, ("train", "val", "test"), strict=True)
    parts = (make_scenes(count, part, seed, tuple(size)) for count, part in names)
    return Streets("drawn streets", "embedded", *parts, note="drawn by make_scenes; no street is in two parts")


# ---------------------------------------------------------------- real pictures


BY_HAND = "nothing is fetched here; the README says where CamVid comes from"
GROUPS = {  # of the 32 classes of the original, as the SegNet authors put them together
    "sky": ("Sky",),
    "building": ("Building", "Wall", "Tunnel", "Bridge", "Archway"),
    "pole": ("Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign_symbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
ORIGINAL = {name: k for k, group in enumerate(GROUPS.values()) for name in group} | {"Void": VOID}


class Pair(NamedTuple):
    """A picture's file, its mask's, and its video sequence."""

    picture: Path
    mask: Path
    sequence: str


DIGITS = re.compile("([0-9]+)")


def _pairs(pictures, masks, ending):
    """The Pairs of two folders, frame 2 before frame 10, and the paths of all else.

    ending: what a mask's name may add.
    """
    for folder in (pictures, masks):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; {BY_HAND}")
    found, skipped = files.list_pictures(pictures)
    labels, strays = files.list_pictures(masks)
    named, masked = {}, {}
    for path in found:
        if (other := named.setdefault(files.stem(path.name), path)) is not path:
            raise DataError(f"{path}: {other.name} lies beside it, and one mask cannot be of both; keep one")
    for path in labels:
        key = files.stem(path.name)
        key = key if key in named else key.removesuffix(ending)
        if key not in named:
            raise DataError(f"{path}: no picture of this name in {pictures}; bring it, or take the mask away")
        if (other := masked.setdefault(key, path)) is not path:
            raise DataError(f"{path}: {other.name} beside it is a mask of the same picture; keep one")
    for key, path in named.items():
        if key not in masked:
            raise DataError(f"{path}: no mask {path.stem}{ending.upper()}.png in {masks}; bring it, or take it away")
    if not named:
        raise DataError(f"{pictures}: no picture; {BY_HAND}")
    order = sorted(named, key=lambda key: [int(part) if k % 2 else part for k, part in enumerate(DIGITS.split(key))])
    pairs = [Pair(named[key], masked[key], named[key].stem.split("_")[0]) for key in order]
    return pairs, [path for path in skipped + strays if not files.is_system(path)]


def _stored(path):
    """A picture file as it is stored: a Pillow picture, and light in [0, 1] where it has 16 bits of grey, else None."""
    image, light = files.open_picture(files.read_bytes(path), path, upright=False)
    if image.getexif().get(0x0112, 1) not in (0, 1):
        raise DataError(f"{path}: an EXIF entry turns it, its partner may not be turned; save both upright without it")
    return image, light


def read_picture(path):
    """A picture as RGB, (H, W, 3) uint8."""
    image, light = _stored(path)
    if light is not None:
        return np.stack([(255 * light).round().astype(np.uint8)] * 3, axis=-1)
    return np.asarray(image.convert("RGB"))


def _check_palette(image, path, palettes):
    """Refuse a palette that makes indices doubtful. palettes: {index: (colour, path)} of the masks read before."""
    used, palette = np.unique(np.asarray(image)), np.array(image.convert("P").getpalette("RGB")).reshape(-1, 3)
    if used[-1] >= len(palette):
        raise DataError(f"{path}: index {used[-1]} has no colour in its palette; save the class indices as 8-bit grey")
    colours = {int(k): tuple(palette[k].tolist()) for k in used}
    if all(len(set(colour)) == 1 for colour in colours.values()) and any(k != c[0] for k, c in colours.items()):
        raise DataError(f"{path}: its palette shows other greys than its indices, so either may be the classes; "
                        "save it as 8-bit grey")  # fmt: skip
    black = [k for k, colour in colours.items() if colour == (0, 0, 0) and k != VOID]
    if black and colours.get(VOID, (0, 0, 0)) != (0, 0, 0):
        raise DataError(f"{path}: index {black[0]} is black and index {VOID} is not, so void may be {black[0]} here; "
                        f"save the class indices, 0 to {VOID - 1} and void {VOID}, as 8-bit grey")  # fmt: skip
    for k, colour in colours.items():
        known, other = palettes.setdefault(k, (colour, path))
        if known != colour:
            raise DataError(f"{path}: index {k} has the colour {colour}, in {other} {known}, so these are no classes; "
                            "save the class indices as 8-bit grey")  # fmt: skip


def read_mask(path, table, palettes=None):
    """A mask as class indices, (H, W) uint8. table: index of each colour (2^24,), 255 unknown; None: stored as such.

    palettes: as in _check_palette, for masks with one.
    """
    image, light = _stored(path)
    if image.format != "PNG":
        raise DataError(f"{path}: a mask is a PNG file, this one is {image.format}, which may have blurred the classes")
    if table is not None and image.mode in ("1", "L", "I;16"):
        raise DataError(f"{path}: a grey mask where colours are expected; load_camvid reads class indices")
    if table is not None:
        rgb = np.asarray(image.convert("RGB")).astype(np.int32)
        mask = table[rgb @ (65536, 256, 1)]
        if (mask == 255).any():
            colour = rgb[mask == 255][0].tolist()
            raise DataError(f"{path}: the colour {tuple(colour)} is of no class in class_dict.csv; add it or mend it")
        return mask
    if image.mode not in ("1", "L", "P") and light is None:
        raise DataError(f"{path}: a mask of colours ({image.mode}) where class indices 0 to {VOID} are expected; "
                        "load_camvid32 reads colours")  # fmt: skip
    if image.mode == "P":
        _check_palette(image, path, {} if palettes is None else palettes)
    mask = np.asarray(image).astype(np.int64) if light is None else (65535 * light).round().astype(np.int64)
    if mask.max() > VOID:
        remedy = "; if it is a mask of colours, load_camvid32 reads it" if image.mode == "P" else ""
        if image.mode == "L" and not (mask % 17).any():  # grey of 4 bits is read as 0, 17, ... 255
            remedy = "; if it was saved with 4 bits, save it as 8-bit grey"
        raise DataError(f"{path}: value {mask.max()}; a mask holds class indices 0 to {VOID}, {VOID} is void{remedy}")
    return mask.astype(np.uint8)


def resize_picture(picture, size):
    """A picture at (H, W): means where it shrinks, between neighbours where it grows."""
    height, width = (min(old, new) for old, new in zip(picture.shape, size))
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_mask(mask, size):
    """A mask at (H, W): the class at the middle of each new pixel, none is ever blended."""
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _spread(pairs, limit):
    """At most `limit` of the pairs, evenly spaced, the same share of each sequence, but at least one (0: all)."""
    if not 0 < limit < len(pairs):
        return pairs
    by_name = {}
    for pair in pairs:
        by_name.setdefault(pair.sequence, []).append(pair)
    groups = list(by_name.values())
    sizes, counts = np.array([len(group) for group in groups]), np.ones(len(groups), int)
    for _ in range(limit - len(groups)):
        counts[np.argmax(sizes / counts)] += 1
    return [group[k] for group, n in zip(groups, counts) for k in ((np.arange(n) + 0.5) * len(group) / n).astype(int)]


def _read(pairs, size, table, known, palettes):
    """Read listed pairs: Scenes. known: {digest: path} of pictures read before, palettes: as in _check_palette."""
    images, masks, shape = [], [], None
    for pair in pairs:
        picture, mask = read_picture(pair.picture), read_mask(pair.mask, table, palettes)
        shape = shape or picture.shape[:2]
        if mask.shape != picture.shape[:2]:
            (h, w), (high, wide) = mask.shape, picture.shape[:2]
            raise DataError(f"{pair.mask}: {w} x {h} pixels, its picture {pair.picture.name} has {wide} x {high}")
        wide = picture.shape[1] / picture.shape[0] * shape[0] / shape[1]
        if not 0.95 < wide < 1.05:
            raise DataError(f"{pair.picture}: {picture.shape[1]} x {picture.shape[0]} pixels, {pairs[0].picture.name} "
                            f"has {shape[1]} x {shape[0]}; another shape would be squeezed, cut it first")  # fmt: skip
        digest = hashlib.sha256(np.ascontiguousarray(picture)).digest()
        if digest in known:
            raise DataError(f"{pair.picture}: the same picture as {known[digest]}; keep one")
        known[digest] = pair.picture
        images.append(resize_picture(picture, size))
        masks.append(resize_mask(mask, size))
    return Scenes(np.stack(images), np.stack(masks), np.array([pair.sequence for pair in pairs]),
                  np.array([pair.picture.name for pair in pairs]))  # fmt: skip


def _check_sequences(pairs):
    """DataError where two names of sequences differ in case or marks alone: is one of them held out, or are both?"""
    names = {}
    for pair in pairs:
        plain = re.sub("[^a-z0-9]", "", pair.sequence.lower())
        other = names.setdefault(plain, pair)
        if not plain or other.sequence != pair.sequence:
            like = f" beside {other.sequence} of {other.picture.name}" if plain else ""
            raise DataError(f"{pair.picture}: sequence {pair.sequence!r}{like}; names of sequences have Latin letters "
                            "or digits, and differ in them; write the same sequence alike")  # fmt: skip


def _load(folder, masks, ending, table, size, limit, held_out):
    """What load_camvid and load_camvid32 share. masks: what the name of a part's folder of masks adds to the part's."""
    folder, size, parts, skipped, seen = Path(folder), tuple(size), {}, [], {}
    for part in ("train", "val", "test"):
        parts[part], strays = _pairs(folder / part, folder / f"{part}{masks}", ending)
        skipped += strays
        for pair in parts[part]:
            if other := seen.get(files.stem(pair.picture.name)):
                raise DataError(f"{pair.picture}: {other} has the same name; a picture stands in one part alone")
        seen |= {files.stem(pair.picture.name): pair.picture for pair in parts[part]}
    _check_sequences(pair for listed in parts.values() for pair in listed)
    parts["extra"], published = parts["val"], parts["train"]
    parts["val"], parts["train"] = ([pair for pair in published if (pair.sequence == held_out) == held]
                                    for held in (True, False))  # fmt: skip
    there = ", ".join(sorted({pair.sequence for pair in published}))
    if not parts["val"] or not parts["train"]:
        which = "only sequence" if parts["val"] else "no sequence"
        raise DataError(f"{folder / 'train'}: {which} {held_out} to hold out; there are: {there}; pass held_out=...")
    known, palettes, scenes = {}, {}, {}
    for part in ("train", "val", "test", "extra"):
        scenes[part] = _read(_spread(parts[part], limit), size, table, known, palettes)
    missing = []
    for part, found in scenes.items():
        shares = class_shares(found.masks)
        if not shares[:VOID].any():
            raise DataError(f"{folder}: all pixels of the {part} part are void; its masks seem to be empty")
        for name in dict.fromkeys(found.sequences) if part != "train" else ():
            if (found.masks[found.sequences == name] == VOID).all():
                raise DataError(f"{folder}: all pixels of sequence {name} of the {part} part are void; mend its masks")
        lacks = [name for name, share in zip(CLASSES, shares) if not share]
        if lacks and not limit:
            raise DataError(f"{folder}: no picture of the {part} part has the class {', '.join(lacks)}; mIoU would be "
                            "a mean over other classes")  # fmt: skip
        missing += [f"{', '.join(lacks)} not in {part}"] if lacks else []
    shared = sorted({pair.sequence for pair in published} & set(scenes["test"].sequences))
    kinds = {files.picture_format(files.read_bytes(pair.picture)) for part in parts.values() for pair in part}
    lossy = " and ".join(sorted(kinds & {"WEBP", "JPEG"}))  # which may have lost something
    note = (f"{lossy} pictures" if lossy else "",
            f"chosen on sequence {held_out}", f"in train and test: sequence {', '.join(shared)}" if shared else "",
            *missing, files.skipped_note(skipped))  # fmt: skip
    return Streets("CamVid", "real", **scenes, note="; ".join(filter(None, note)))


def load_camvid(folder, size, limit=0, held_out="0006R0"):
    """CamVid with eleven classes as SegNet's authors lay it out: {train,val,test}/X.png and {part}annot/X.png.

    size: (H, W). The sequence held_out of the published training part becomes `val`, the published validation part,
    seven seconds out of another training sequence, `extra`. limit: at most so many pictures of each part, evenly
    spaced, and one of each sequence in any case (0: all). DataError names the file at fault.
    """
    return _load(folder, "annot", "", None, size, limit, held_out)


def _colours(path):
    """class_dict.csv (name, r, g, b) as a table: the index of each colour r 65536 + g 256 + b, 255 for no class."""
    rows, table = files.read_table(path, ("name", "r", "g", "b")), np.full(2**24, 255, np.uint8)
    values, seen = np.stack([files.numbers(rows, column, whole=True) for column in "rgb"], axis=1), set()
    for line, name, colour in zip(rows.index, rows["name"], values):
        if name not in ORIGINAL:
            raise DataError(f"{path}, line {line}: {name!r} is none of CamVid's 32 classes")
        if name in seen:
            raise DataError(f"{path}, line {line}: {name!r} stands there twice")
        seen.add(name)
        if colour.min() < 0 or colour.max() > 255:
            raise DataError(f"{path}, line {line}: {tuple(colour.tolist())} is no colour; 0 to 255 is expected")
        if table[colour @ (65536, 256, 1)] != 255:
            raise DataError(f"{path}, line {line}: the colour {tuple(colour.tolist())} stands there twice")
        table[colour @ (65536, 256, 1)] = ORIGINAL[name]
    return table


def load_camvid32(folder, size, limit=0, held_out="0006R0"):
    """CamVid with 32 classes as colours, put into eleven: {train,val,test}/X.png and {part}_labels/X_L.png or X.png.

    class_dict.csv (name, r, g, b) beside them says which colour is which class. All else as in load_camvid; where the
    training part has no sequence 0006R0, another must be named.
    """
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder; {BY_HAND}")
    return _load(folder, "_labels", "_l", _colours(Path(folder) / "class_dict.csv"), size, limit, held_out)


# ---------------------------------------------------------------- settings


def check_settings(cfg):
    """LabError naming a setting that cannot work, whatever the data."""
    least = {"steps": 1, "cut_steps": 1, "distilled_steps": 1, "trial_steps": 1, "trial_seed": 0, "batch_size": 2,
             "longer": 0, "limit": 0, "block": 1, "threads": 1, "rounds": 2}  # fmt: skip
    for name, lowest in least.items():
        if getattr(cfg, name) < lowest:
            raise LabError(f"setting {name}={getattr(cfg, name)}: at least {lowest} is needed")
    for name, count, lowest in (("size", 2, 64), ("crop", 2, 32), ("counts", 3, 1)):
        values = getattr(cfg, name)
        if len(values) != count or any(value != int(value) or value < lowest for value in values):
            raise LabError(f"setting {name}={values}: {count} whole numbers are needed, each {lowest} at least")
    if any(part > whole or part % 8 for part, whole in zip(cfg.crop, cfg.size)):
        raise LabError(f"setting crop={cfg.crop}: multiples of 8, at most size={cfg.size}")
    if len(cfg.scales) != 2 or not 0.1 <= cfg.scales[0] <= cfg.scales[1] <= 10:
        raise LabError(f"setting scales={cfg.scales}: two enlargements from 0.1 to 10 are needed, the least first")
    if cfg.counts[0] < 2:
        raise LabError(f"setting counts={cfg.counts}: two pictures to learn from at least; a control swaps their masks")
    for name in ("steps", "cut_steps", "distilled_steps", "trial_steps"):
        if getattr(cfg, name) > 400_000:
            raise LabError(f"setting {name}={getattr(cfg, name)}: at most 400,000")
    if cfg.longer == 1:
        raise LabError("setting longer=1: the same training again; 0 (none), or 2 and more")
    if cfg.compiled and not shutil.which(os.environ.get("CXX", "g++")):
        raise LabError("setting compiled=True: no C++ compiler (g++, or what CXX names) is found; install one, or "
                       'leave it out: NNDL_SET="compiled=False"')  # fmt: skip
    if cfg.longer * max(cfg.steps, cfg.cut_steps) > 400_000:
        raise LabError(f"setting longer={cfg.longer}: times steps or cut_steps it is more than 400,000")
    for name, most in (("lr", 100), ("width", 16)):
        if not 0 < getattr(cfg, name) <= most:
            raise LabError(f"setting {name}={getattr(cfg, name)}: above 0, and at most {most}")
    for name in ("weight_decay", "auxiliary"):
        if not 0 <= getattr(cfg, name) < float("inf"):
            raise LabError(f"setting {name}={getattr(cfg, name)}: 0 or more, and finite")
    if not 0 <= cfg.decay < 1:
        raise LabError(f"setting decay={cfg.decay}: from 0 to below 1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cfg.threads > cores:
        raise LabError(f"setting threads={cfg.threads}: this process may use {cores}")
    powers = list(cfg.powers)
    if powers[:1] != [0] or len({f"{abs(p):g}" for p in powers}) < len(powers) or not all(0 <= p <= 2 for p in powers):
        raise LabError(f"setting powers={cfg.powers}: different ones from 0 to 2 are needed, 0 first")
    seeds = list(cfg.seeds)
    if (
        len(seeds) < 2
        or len(set(seeds)) < len(seeds)
        or any(seed != int(seed) or not 0 <= seed < 2**31 for seed in seeds)
    ):
        raise LabError(f"setting seeds={cfg.seeds}: whole numbers from 0 to below 2^31, two at least, none twice")
    if cfg.trial_seed in seeds or cfg.trial_seed >= 2**31:
        raise LabError(f"setting trial_seed={cfg.trial_seed}: below 2^31, and none of seeds={cfg.seeds}: what a choice "
                       "was made with is used nowhere else")  # fmt: skip


def blocks_in(pictures, block):
    """Number of equal blocks in a sequence of so many pictures: pictures / block, rounded, and one at least."""
    return max(1, round(pictures / block))


def check_blocks(streets, block):
    """LabError where a part that is scored has fewer than two blocks of so many frames: intervals draw blocks."""
    if len(streets.train.names) < 2:
        raise LabError("one picture to learn from: two at least are needed, since a control swaps their masks")
    for part, scenes in streets.parts().items():
        lengths = [int((scenes.sequences == name).sum()) for name in dict.fromkeys(scenes.sequences)]
        if part not in ("train", "extra") and sum(blocks_in(n, block) for n in lengths) < 2:
            raise LabError(f"setting block={block}: the {part} part has {sum(lengths)} frames, fewer than two blocks; "
                           "take smaller blocks, or more pictures (limit, counts)")  # fmt: skip
        if part != "train" and len(lengths) > 1 and max(lengths) == 1:
            raise LabError(f"{part}: each picture has a sequence of its own ({', '.join(scenes.names[:2])}); names "
                           "begin with the sequence and an underscore; or take a larger limit")  # fmt: skip


# ---------------------------------------------------------------- memory

ANSWER_ONCE = """
import sys
import numpy as np
import onnxruntime
if len(sys.argv) > 1:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    runtime.run(None, {"x": np.zeros((1, 3, int(sys.argv[2]), int(sys.argv[3])), np.float32)})
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_memory(model, size):
    """Megabytes that a fresh process takes at most for an ONNX model (bytes): to load it and to answer one picture.

    size: (H, W) of the picture. What Python and ONNX Runtime take by themselves is not counted. NaN where there is no
    /proc/self/status (it is Linux's).
    """
    if not Path("/proc/self/status").exists():
        return float("nan")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        kilobytes = []
        for given in ([path, *map(str, size)], []):
            ran = subprocess.run([sys.executable, "-c", ANSWER_ONCE, *given], capture_output=True, encoding="utf-8")
            if ran.returncode:
                raise LabError(f"peak memory of a model: {(ran.stderr.strip().splitlines() or ['no word'])[-1]}")
            kilobytes.append(int(ran.stdout))
    return (kilobytes[0] - kilobytes[1]) * 1024 / 1e6


# ---------------------------------------------------------------- drawing


def to_colours(masks):
    """Class indices (..., H, W) as colours of PALETTE: (..., H, W, 3) uint8."""
    return PALETTE[masks]


def class_legend(target, **where):
    """A legend of the classes' colours for a figure or an axis."""
    patches = [Patch(facecolor=colour / 255, edgecolor=GREY, label=name)
               for name, colour in zip([*CLASSES, "void"], PALETTE)]  # fmt: skip
    target.legend(handles=patches, frameon=False, fontsize=8, **where)


def show_scenes(rows, titles, title):
    """A grid of pictures and masks in colours: rows are arrays (N, H, W, 3) with a title each, columns are scenes."""
    count, (height, width) = max(len(row) for row in rows), rows[0].shape[1:3]
    wide = min(2.2, 10 / count)
    tall = wide * height / width
    figure, axes = plt.subplots(
        len(rows), count, figsize=(wide * count + 1.0, tall * len(rows) + 0.9), squeeze=False, layout="constrained"
    )
    for line, row, text in zip(axes, rows, titles, strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for axis, picture in zip(line, row):
            axis.imshow(picture, interpolation="nearest")
        line[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
    class_legend(figure, loc="outside lower center", ncols=6)
    figure.suptitle(title)
    plt.show()


def show_ious(values, title, xlabel="IoU in %"):
    """IoU of each class for several methods: {method: (11,)} in percent; NaN is left out."""
    figure, axis = plt.subplots(figsize=(7.6, 4.4))
    for k, ((name, ious), colour, marker) in enumerate(zip(values.items(), cycle(COLOURS), cycle("os^Dv<>X*P"))):
        rows = np.arange(VOID) + 0.5 * ((k + 0.5) / len(values) - 0.5)
        axis.plot(ious, rows, marker, color=colour, markersize=5, label=name)
    for row in range(VOID):
        axis.axhline(row, color=GREY, linewidth=0.4, alpha=0.5, zorder=0)
    axis.set_yticks(range(VOID), CLASSES, fontsize=9)
    axis.set(title=title, xlabel=xlabel, xlim=(-2, 102), ylim=(VOID - 0.4, -0.6))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(figure)


MARKS = {"full size": "o", "3/4": "s", "1/2": "^", "longer training": "*"}  # of points, in show_frontier


def show_frontier(lines, title, xlabel, ylabel):
    """Points of several methods, x on a logarithmic axis: {name: [dict(x, y, low, high, mark)]}; one colour a name.

    low and high: an interval of y. mark: a key of MARKS. Points of one method are joined in the order of x, those of
    longer training are not.
    """
    figure, axis = plt.subplots(figsize=(7.6, 4.2))
    for (name, points), colour in zip(lines.items(), COLOURS):
        joined = sorted((point["x"], point["y"]) for point in points if point["mark"] != "longer training")
        axis.plot(*zip(*joined), color=colour, linewidth=1, label=name)
        for point in points:
            axis.plot([point["x"]] * 2, [point["low"], point["high"]], color=colour, linewidth=1.5)
            axis.plot(point["x"], point["y"], MARKS[point["mark"]], color=colour, markersize=8)
    for mark in dict.fromkeys(point["mark"] for points in lines.values() for point in points):
        axis.plot([], [], MARKS[mark], color=GREY, label=mark)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    finish(figure)
