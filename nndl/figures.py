"""One look for all figures of the course."""

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
