"""What kind of file it is, by its first bytes, and the sentences for what cannot be used.

Each fault has a sentence and a remedy of its own: saving a file again does not help where its kind is the trouble.
"""

from __future__ import annotations

from engine.errors import ImageError

USABLE = "JPEG, PNG, WebP, AVIF, HEIC, GIF, TIFF or BMP"
SNIFF = 4096  # bytes looked at
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")
_AVIF = (b"avif", b"avis")
_RAW = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")


def kind_of(head: bytes) -> str:
    """Return the format's name in Pillow, or "" for anything that is not one of those that are read here."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = _brands(head)
        if brands & set(_AVIF):
            return "AVIF"
        if brands & set(_HEIF):
            return "HEIF"
    return ""


def _brands(head: bytes) -> set[bytes]:
    """Read the brands of an ISO base media file: the major one, and the compatible ones if it is generic HEIF."""
    length = min(max(int.from_bytes(head[:4], "big"), 12), len(head))
    major = head[8:12]
    if major in _AVIF or (major in _HEIF and major not in (b"mif1", b"msf1", b"mif2")):
        return {major}
    return {major} | {head[at : at + 4] for at in range(16, length - 3, 4)} if major in _HEIF else {major}


def not_a_picture(head: bytes, name: str) -> ImageError:
    """Return the error that says what the file is instead, from its first bytes."""
    text = head.decode("utf-8", "ignore").lstrip("\ufeff \t\r\n").lower()
    if head.startswith((b"\x89PNG", b"GIF8")):
        return damaged(name)
    if head.startswith(_RAW) or (head[4:8] == b"ftyp" and head[8:12] == b"crx "):
        return camera_raw(name)
    if "<svg" in text:
        return ImageError(f"{name} is an SVG drawing", "Export it as PNG and use that.")
    if head.startswith(b"%PDF") or head.startswith(b"%!PS"):
        return ImageError(f"{name} is a document", "Export the page as PNG and use that.")
    if head.startswith(b"8BPS"):
        return ImageError(f"{name} is a Photoshop file", "Export it as PNG and use that.")
    if head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3") or head[8:12] == b"AVI ":
        return ImageError(f"{name} is a video", "Save one frame of it as PNG and use that.")
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return ImageError(f"{name} is text, not a picture, whatever its name says", f"Use a {USABLE} file.")
    return ImageError(f"{name} is not a picture that can be read here", f"Save it as {USABLE}.")


def camera_raw(name: str) -> ImageError:
    return ImageError(
        f"{name} is a camera's raw file", "Export it as JPEG, in the camera or on a computer, and use that."
    )


def damaged(name: str) -> ImageError:
    return ImageError(f"{name} is damaged or incomplete", "Save or download it again.")


def cut_off(name: str, what: str = "its end is missing") -> ImageError:
    return ImageError(f"{name} is cut off: {what}", "Download or copy it again.")


def unsupported(name: str, what: str, remedy: str) -> ImageError:
    """Return the error for an intact file of a kind that is not read here.

    `what` names it, as in "a JPEG with 12 bits a colour".
    """
    return ImageError(f"{name} is {what}, which cannot be read here", remedy)
