"""The cast with its pictures: what every engine starts from."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from engine.scene.scene import Element


@dataclass(frozen=True)
class Member:
    """One of the cast, ready to be composed.

    `picture` is RGBA with straight alpha for characters and objects, in the photo's own frame (so that "cropped by
    the photo's edge" can be seen: alpha reaches that border), and RGB for the background. `views` are further pictures
    of the same one, in the same form, for models that have room for them.
    """

    element: Element
    picture: Image.Image
    views: tuple[Image.Image, ...] = ()
