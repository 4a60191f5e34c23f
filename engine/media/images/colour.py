"""From what the file says of its colours to sRGB. What counts before what is PNG's rule (third edition, 4.3): cICP,
then the ICC profile, then sRGB, then gamma and primaries; what a camera says in EXIF comes last."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageCms

from engine.media.images import icc, spaces
from engine.media.images.spaces import Space
from engine.media.images.survey import Colour

_UNUSABLE = "Its colour profile cannot be used, so its colours may look a little different."
_HDR = "It is an HDR picture: its brightest parts were made darker, to fit an ordinary one."
_NEARLY = 1  # levels by which a profile that counts as sRGB may differ from it


@dataclass(frozen=True)
class ColourConversion:
    """How a picture's colours are converted to sRGB: by `space`, by the ICC `profile`, or not at all. `deep`: its
    transfer function needs more than eight bits, so it is to be applied (`table`) while there are more."""

    space: Space | None = None
    profile: bytes | None = None
    notice: str = ""

    @property
    def deep(self) -> bool:
        return bool(self.space and self.space.needs_depth) or self._profile_curve() is not None

    def table(self) -> np.ndarray | None:
        """Compute the lookup table, (65536,) uint8, to sRGB's transfer function over the picture's own primaries.

        None where none is needed.
        """
        curve = self.space.curve if self.space else self._profile_curve()
        if curve is None:
            return None
        return Space(spaces.SRGB, curve).table(65536)

    def after(self) -> ColourConversion:
        """Return the conversion that is left to do where the table was applied."""
        if self.space:
            return replace(self, space=Space(self.space.chroma, spaces.srgb_light))
        if self.profile is None or self._profile_curve() is None:
            return self
        return replace(self, profile=icc.with_curve(self.profile, _srgb_curve()))

    def _profile_curve(self) -> spaces.Curve | None:
        """Return the profile's transfer function where it is far from a display's, else None."""
        curve = icc.curve_of(self.profile) if self.profile else None
        return curve if curve and Space(spaces.SRGB, curve).needs_depth else None


def way_of(colour: Colour) -> ColourConversion:
    """Choose the conversion from what the file says of its colours."""
    broken = _UNUSABLE if colour.broken else ""
    named = colour.cicp
    if colour.icc:
        said = icc.cicp_of(colour.icc)
        named = named or (said if said and said[1] in spaces.HDR else None)
    if named and (space := spaces.of_cicp(*named)):
        return ColourConversion(space, notice=_HDR if space.hdr else "")
    if colour.icc:
        return ColourConversion(profile=colour.icc)
    if colour.srgb:
        return ColourConversion(notice=broken)
    if colour.gamma and (space := spaces.of_png(colour.gamma, colour.chroma)):
        return ColourConversion(space, notice=broken)
    return ColourConversion(spaces.adobe_rgb() if colour.adobe else None, notice=broken)


def to_srgb(colours: Image.Image, way: ColourConversion) -> tuple[Image.Image, str]:
    """Convert a picture of mode L, RGB, CMYK or LAB to RGB in sRGB; returns also a notice, or "".

    Phones write Display P3, printers CMYK: shown without their profile such pictures look dull or wrong.
    """
    if way.space:
        return _by_numbers(colours, way.space), way.notice
    if way.profile:
        converted = _by_profile(colours, way.profile)
        return (converted, way.notice) if converted else (_plain(colours), _UNUSABLE)
    return _plain(colours), way.notice


def _plain(colours: Image.Image) -> Image.Image:
    if colours.mode != "LAB":
        return colours.convert("RGB")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return _converted(colours, lab)


def _by_numbers(colours: Image.Image, space: Space) -> Image.Image:
    picture = colours.convert("RGB")
    if space.curve is not spaces.srgb_light:
        picture = picture.point(list(space.table(256)) * 3)
    if space.same_primaries:
        return picture
    return _converted(picture, ImageCms.ImageCmsProfile(io.BytesIO(space.profile())))


def _by_profile(colours: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert colours by an ICC profile; None where it is broken or is for other colours."""
    kind = icc.space_of(profile)
    if kind == "RGB" and colours.mode == "L":  # grey that was saved with the profile of the colours it once had
        colours = colours.convert("RGB")
    if kind == "GRAY" and colours.mode == "RGB" and _is_grey(colours):
        colours = colours.convert("L")
    if kind != {"L": "GRAY", "LAB": "Lab"}.get(colours.mode, colours.mode):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if colours.mode == "RGB" and _is_srgb(source):
            return colours
        return _converted(colours, source)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _converted(colours: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    return ImageCms.profileToProfile(  # type: ignore[return-value]  # None only where it is asked to work in place
        colours,
        source,
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _is_srgb(source: ImageCms.ImageCmsProfile) -> bool:
    """Check whether a profile leaves colours as they are, whatever it is called: by what it does to some of them."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    after = np.asarray(_converted(Image.fromarray(cube), source)).astype(int)
    return bool(np.abs(after - cube).max() <= _NEARLY)


def _is_grey(picture: Image.Image) -> bool:
    red, green, blue = picture.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _srgb_curve() -> bytes:
    values: bytes = np.rint(65535 * spaces.srgb_light(np.linspace(0, 1, 4096))).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", 4096) + values
