"""Handwriting, audio and images: read, drawn and played.

Drawing functions make figures of arrays, `figures` makes PNG, SVG and arrays of figures, a `Medium`
is what goes with one kind of records. Nothing here touches pyplot's global state, and importing it
brings in no TensorFlow.
"""

from stcn_tf.media.audio import draw_audio
from stcn_tf.media.figures import (
    INK,
    PREFIX_INK,
    RECONSTRUCTION_INK,
    figure_to_rgb,
    figure_to_svg,
    save_png,
    save_svg,
    value_colors,
)
from stcn_tf.media.handwriting import draw_handwriting, draw_reconstruction
from stcn_tf.media.images import (
    draw_image_comparison,
    draw_image_reconstructions,
    draw_images,
)
from stcn_tf.media.medium import Medium
from stcn_tf.media.page import medium_of, write_page
from stcn_tf.media.reconstructions import Reconstructions

__all__ = [
    "INK",
    "PREFIX_INK",
    "RECONSTRUCTION_INK",
    "Medium",
    "Reconstructions",
    "draw_audio",
    "draw_handwriting",
    "draw_image_comparison",
    "draw_image_reconstructions",
    "draw_images",
    "draw_reconstruction",
    "figure_to_rgb",
    "figure_to_svg",
    "medium_of",
    "save_png",
    "save_svg",
    "value_colors",
    "write_page",
]
