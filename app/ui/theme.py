"""Troupe's theme: light and dark, one accent colour, the system's fonts."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors, fonts, sizes

CURTAIN = colors.Color(
    name="curtain",
    c50="#fff3ef", c100="#ffe3da", c200="#ffc7b6", c300="#ffa387", c400="#fa7a57", c500="#ec5633",
    c600="#d3401f", c700="#ad3117", c800="#8a2a17", c900="#6f2617", c950="#3d1009",
)  # fmt: skip
HOUSE = colors.Color(
    name="house",
    c50="#faf8f5", c100="#f2eee8", c200="#e5dfd6", c300="#cfc6ba", c400="#a59b93", c500="#7d7476",
    c600="#5b5360", c700="#3c3545", c800="#272132", c900="#1b1624", c950="#120e19",
)  # fmt: skip


def troupe_theme() -> gr.themes.Base:
    """Build the theme for `launch`."""
    sans = (fonts.Font("system-ui"), fonts.Font("Segoe UI"), fonts.Font("Roboto"), fonts.Font("sans-serif"))
    mono = (fonts.Font("ui-monospace"), fonts.Font("Consolas"), fonts.Font("monospace"))
    theme = gr.themes.Base(
        primary_hue=CURTAIN, secondary_hue=CURTAIN, neutral_hue=HOUSE, radius_size=sizes.radius_lg,
        spacing_size=sizes.spacing_md, text_size=sizes.text_md, font=sans, font_mono=mono,
    )  # fmt: skip
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_text_weight="600",
        block_title_text_weight="600",
        block_shadow="none",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_700",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
    )
