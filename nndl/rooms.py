"""The twelve assignments, and how a command names one."""

from pathlib import Path

from nndl.records import LabError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ("description", "code", "report")  # in the order in which they run: the report reads what the code wrote

# Each room with its question in one line.
ROOMS = {
    "CA2_covid_cnn": "COVID-19 on chest X-rays with a CNN: disease, or the hospital that made the picture?",
    "CA2_vehicle_cnn": "Vehicle classes: a CNN end to end against a support vector machine on its features",
    "CA3_fast_scnn": "Fast-SCNN: real-time segmentation of street scenes",
    "CA3_oriented_rcnn": "Oriented R-CNN: rotated boxes in aerial pictures",
    "CA4_captioning": "Image captions with LSTM and GRU, with and without Bahdanau attention",
    "CA4_timeseries": "Recurrent forecasting of a time series that says how sure it is",
    "CA5_vit": "A vision transformer from scratch",
    "CA5_clip_attack": "CLIP: adversarial attacks, and defences by LoRA, TeCoA and visual prompts",
    "CA6_cyclegan_uda": "CycleGAN: from MNIST to MNIST-M without labels in the target domain",
    "CA6_vae": "Variational autoencoders that find anomalies",
    "CAe_cnn_vit_attack": "CNN against vision transformer under adversarial attack",
    "CAe_persian_captioning": "Persian image captions with a transformer",
}


class CourseError(LabError):
    """Something that cannot be done; the message is all that is shown."""


class UsageError(CourseError):
    """A name or value that does not exist; the same, with exit status 2."""


def existing_rooms():
    """The rooms that have notebooks, in the course's order."""
    return [room for room in ROOMS if any((ROOT / room).glob("*.ipynb"))]


def chosen_rooms(room):
    """One room by its name (a slash at its end, from tab completion, does not matter), or all that exist."""
    rooms, room = existing_rooms(), (room or "").rstrip("/\\")
    if room and room not in rooms:
        why = "not there yet" if room in ROOMS else "no such assignment"
        raise UsageError(f"{room}: {why}; there are: {', '.join(rooms) or 'none'}")
    return [room] if room else rooms


def one_room(room, example):
    """The room that is named; UsageError where none is, with an example of the command."""
    if not room:
        raise UsageError(f"which assignment? e.g. {example}")
    return chosen_rooms(room)[0]
