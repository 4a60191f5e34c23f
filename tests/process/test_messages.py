"""The channel to the engine's process: what is said comes out as it went in, and nothing else comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.a2.options import A2Options
from engine.door import render
from engine.door.render import Progress, RenderRequest
from engine.process import messages
from engine.process.messages import ChannelError


def test_messages_come_back_as_they_were(tiny_scene, tmp_path):
    options = A2Options(model="ü\ud800", precision="bf16", batched_guidance=True, state=tmp_path / "run.safetensors")
    scene = tiny_scene(prompt='"quoted"\n ü 日本')
    request = RenderRequest(scene, tmp_path, tmp_path / "a.mp4", cache=tmp_path, engine="a2", options=options)
    for message in (
        messages.RenderOrder(3, request),
        messages.Hello(),
        messages.StopOrder(4),
        messages.Release(),
        messages.Quit(),
    ):
        assert messages.read(messages.line_of(message), messages.ToEngine) == message
    result = render.Result(tmp_path / "a.mp4", None, 8, 1.5, "draft", ("a notice",))
    progress = Progress("frames", 1, 8, 2.0, None)
    for message in (messages.Done(1, result), messages.Told(2, progress), messages.Alive(), messages.Halted(1)):
        line = messages.line_of(message)
        assert line.isascii()
        assert line.count(b"\n") == 1
        assert messages.read(line, messages.FromEngine) == message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"say":"StopOrder"}', "other fields"),
        (b'{"say":"StopOrder","job":1,"more":2}', r"other fields \(more\)"),
        (b'{"say":"StopOrder","job":true}', "StopOrder.job"),
        (b'{"say":"StopOrder","job":"1"}', "StopOrder.job"),
        (b'{"say":"Told","job":1}', "not known"),
        (b"[]", "not known"),
        (b"", "no message"),
    ],
)
def test_a_line_that_does_not_fit_is_refused(line, says):
    with pytest.raises(ChannelError, match=says):
        messages.read(line, messages.ToEngine)


def test_a_value_that_cannot_travel_is_named(tmp_path):
    progress = Progress("frames", 1, 8, float("nan"), None)
    with pytest.raises(ChannelError, match=r"Told\.progress\.elapsed"):
        messages.line_of(messages.Told(1, progress))
    with pytest.raises(ChannelError, match=r"Told\.progress\.detail: a list"):
        messages.line_of(messages.Told(1, replace(progress, elapsed=0.0, detail=[])))
