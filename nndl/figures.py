"""One look for all figures of the course, and the drawings that several rooms share."""

from itertools import cycle

import matplotlib.pyplot as plt
import seaborn as sns

# a palette that survives colour blindness (Okabe and Ito 2008)
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#E69F00", "#56B4E9", GREY, "#000000")


def style():
    """Set the look; called once, at the top of a notebook."""
    sns.set_theme(style="ticks", palette="colorblind", rc={"figure.dpi": 80, "axes.titlesize": 11, "font.size": 10})


def finish(figure):
    """The last strokes of a figure with axes; shows it."""
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_pictures(images, titles, columns, title):
    """A grid of pictures with a title each."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.1 * columns, 1.45 * rows + 0.3), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, text in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image)
        axis.set_title(text, fontsize=9)
    figure.suptitle(title)
    finish(figure)


def show_lines(curves, title, xlabel, ylabel, diagonal=False):
    """Lines {name: (x, y)}, with points where they are few; `diagonal` adds the line y = x."""
    figure, axis = plt.subplots(figsize=(9.0 if len(curves) > 4 else 6.4, 3.6))
    if diagonal:
        axis.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    for (name, (x, y)), colour, dash in zip(curves.items(), cycle(COLOURS), cycle(("-", "--", "-.", ":"))):
        axis.plot(x, y, dash, color=colour, label=name, marker="o" if len(x) < 15 else None, markersize=4)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    many = len(curves) > 4  # beside the axes, where a legend would lie on the lines
    axis.legend(frameon=False, fontsize=8, **(dict(loc="center left", bbox_to_anchor=(1, 0.5)) if many else {}))
    finish(figure)


def show_points(groups, title, xlabel, lines=()):
    """Results with intervals: {group: {label: dict(value, low, high)}}; lines: (place, label) verticals."""
    rows = list(dict.fromkeys(label for results in groups.values() for label in results))
    height = (0.2 + 0.09 * len(groups)) * len(rows)  # of the axis, in inches
    figure, axis = plt.subplots(figsize=(7.8, 1.3 + height))
    for k, ((name, results), colour) in enumerate(zip(groups.items(), COLOURS)):
        for label, m in results.items():
            y = rows.index(label) + 0.25 * (k - (len(groups) - 1) / 2)
            axis.plot([m["low"], m["high"]], [y, y], color=colour, linewidth=2)
            axis.plot(m["value"], y, "os^D"[k % 4], color=colour, markersize=5)
        axis.plot([], [], "os^D"[k % 4], color=colour, label=name)
    for (place, label), dash in zip(lines, (":", "--", "-.")):
        axis.axvline(place, color=GREY, linestyle=dash, label=label)
    axis.set_yticks(range(len(rows)), rows, fontsize=9)
    axis.set(title=title, xlabel=xlabel, ylim=(len(rows) - 0.4, -0.6))
    if len(groups) > 1 or lines:
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.35, -0.5 / height), ncols=3)
    finish(figure)


def show_scatter(places, labels, names, title):
    """Points in the plane, coloured by class."""
    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    for k, (name, colour, marker) in enumerate(zip(names, cycle(COLOURS), cycle("os^Dv<>X*Ph"))):
        axis.scatter(*places[labels == k].T, s=18, color=colour, marker=marker, label=name, linewidths=0, alpha=0.8)
    axis.set(title=title, xticks=[], yticks=[])
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(figure)


def show_confusion(matrix, names, title):
    """A confusion matrix (rows: truth) with counts."""
    figure, axis = plt.subplots(figsize=(1.6 + 0.5 * len(names), 1.1 + 0.42 * len(names)))
    sns.heatmap(matrix, annot=True, fmt="d", cmap="Blues", cbar=False, ax=axis, xticklabels=names, yticklabels=names)
    axis.tick_params(axis="x", rotation=40, labelsize=8)
    axis.tick_params(axis="y", rotation=0, labelsize=8)
    axis.set(title=title, xlabel="predicted", ylabel="true")
    figure.tight_layout()
    plt.show()
