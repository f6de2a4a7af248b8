"""Sketches: the whole real set, seen once under fixed pairs of network and augmentation draw, as one small file."""

from latentdc.sketch.artefact import Sketch, SketchView
from latentdc.sketch.make import sketch
from latentdc.sketch.manifest import Manifest, landmarks_of
from latentdc.sketch.size import sketch_bytes

__all__ = ["Manifest", "Sketch", "SketchView", "landmarks_of", "sketch", "sketch_bytes"]
