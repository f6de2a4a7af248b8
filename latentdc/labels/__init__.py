"""Labels of a set: the class of each row, what a teacher says of its images, or what is learned with them."""

from latentdc.labels.base import HardLabels, Labels, Lesson
from latentdc.labels.learned import LearnedLabels, as_logits, check_moved, logits_of
from latentdc.labels.rows import begun, relabelled
from latentdc.labels.teacher import TeacherLabels

LABELS: dict[str, type[Labels]] = {"hard": HardLabels, "teacher": TeacherLabels, "learned": LearnedLabels}
"""What a recipe may ask for."""

__all__ = [
    "LABELS",
    "HardLabels",
    "Labels",
    "LearnedLabels",
    "Lesson",
    "TeacherLabels",
    "as_logits",
    "begun",
    "check_moved",
    "logits_of",
    "relabelled",
]
