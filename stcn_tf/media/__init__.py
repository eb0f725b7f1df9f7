"""Pictures of handwriting, images and audio: arrays to figures, figures to PNG, SVG and arrays.

Nothing here touches pyplot's global state.
"""

from stcn_tf.media.audio import draw_audio
from stcn_tf.media.figures import (
    INK,
    PREFIX_INK,
    RECONSTRUCTION_INK,
    figure_to_rgb,
    save_png,
    save_svg,
)
from stcn_tf.media.handwriting import draw_handwriting, draw_reconstruction
from stcn_tf.media.images import draw_image_reconstructions, draw_images

__all__ = [
    "INK",
    "PREFIX_INK",
    "RECONSTRUCTION_INK",
    "draw_audio",
    "draw_handwriting",
    "draw_image_reconstructions",
    "draw_images",
    "draw_reconstruction",
    "figure_to_rgb",
    "save_png",
    "save_svg",
]
