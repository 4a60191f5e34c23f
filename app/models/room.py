"""The Models tab: its layout, and what the buttons do. For the owner of the machine only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from app.machine.planner import Planner
from app.models import views
from app.models.card import build_card
from app.models.getting import Getting
from app.ui.markup import fill
from app.ui.safely import Event, Handler, safely
from engine.a2.models import RELEASES, SPECS, release_of
from engine.disk.room import free_bytes
from engine.models import look, look_at_libraries
from engine.models.store import ModelStore
from engine.models.work import RUNNING
from engine.words import gigabytes, sentence

OTHER = "another"  # the choice of a checkpoint that is none of the releases
SECONDS = 1.0  # between two updates, while something is running


class Room:
    """The tab's components, by name. Make it inside the tab."""

    def __init__(self) -> None:
        self.refusal = gr.HTML(views.NOT_YOURS, visible=False, elem_id="tr-not-yours")
        self.body = gr.Column(visible=False, elem_id="tr-models")
        with self.body:
            gr.HTML(views.INTRO)
            with gr.Column(elem_classes="tr-thing"):
                self.libraries = gr.HTML("", elem_id="tr-libraries")
                with gr.Row(elem_classes="tr-actions"):
                    self.install = gr.Button("Install", variant="primary", size="sm", elem_id="tr-install")
                    self.install_stop = gr.Button("Stop", size="sm", elem_id="tr-install-stop")
            with gr.Column(elem_classes="tr-thing"):
                self._checkpoint()
        self.timer = gr.Timer(SECONDS, active=False)

    def _checkpoint(self) -> None:
        offered = [*((f"{sentence(each.gives)}: {each.title}", each.model) for each in RELEASES), ("Another", OTHER)]
        self.chosen = gr.HTML("", elem_id="tr-chosen")
        self.which = gr.Radio(offered, label="Which model", elem_id="tr-which")
        self.about = gr.HTML("", elem_id="tr-about-model")
        self.checkpoint = gr.HTML("", elem_id="tr-checkpoint")
        with gr.Row(elem_classes="tr-actions"):
            self.download = gr.Button("Download", variant="primary", size="sm", elem_id="tr-download-model")
            self.stop = gr.Button("Stop", size="sm", elem_id="tr-download-stop")
            self.verify = gr.Button("Check the files", size="sm", elem_id="tr-verify")
            self.delete = gr.Button("Delete", size="sm", elem_id="tr-delete")
        self.confirm = gr.Column(visible=False, elem_id="tr-confirm")
        with self.confirm:
            self.question = gr.HTML("")
            with gr.Row(elem_classes="tr-actions"):
                self.delete_now = gr.Button("Yes, delete it", variant="stop", size="sm", elem_id="tr-delete-now")
                self.keep = gr.Button("Keep it", size="sm", elem_id="tr-keep")
        self.other = gr.Accordion("Use another checkpoint", open=False, elem_id="tr-other")
        with self.other:
            self.model = gr.Textbox(
                label="A name on the hub (owner/name), a folder or a file on this machine", max_length=1000,
                elem_id="tr-checkpoint-name", info="Of one of these families. Empty means the usual one.",
            )  # fmt: skip
            self.family = gr.Dropdown(
                [("As its name says", ""), *((spec.title, spec.family) for spec in SPECS.values())], value="",
                label="Its family", elem_id="tr-family",
                info="Where its name does not say it: a model that is told of its references as another family expects "
                "would ignore them.",
            )  # fmt: skip


def build_models(
    blocks: gr.Blocks, tab: gr.Tab, getting: Getting, is_owner: Callable[[], bool], planner: Planner,
    release: Callable[[], None],
) -> None:  # fmt: skip
    """Fill the tab. Call it inside the tab, in the page's `blocks`. Guests of a shared page see nothing and can do
    nothing."""
    room = Room()
    with room.body, gr.Column(elem_classes="tr-thing"):
        build_card(tab, planner, release, is_owner)
    _wire(blocks, tab, room, getting, is_owner)


def _wire(blocks: gr.Blocks, tab: gr.Tab, room: Room, getting: Getting, is_owner: Callable[[], bool]) -> None:
    outputs = [each for name, each in vars(room).items() if name != "keep" and name != "delete_now"]

    def show(asking: bool = False, naming: bool = False) -> dict[Block, Any]:
        """Show the tab as it is now. `naming`: update the choice and the box with the checkpoint's name, too, which
        overwrites what is chosen and typed there."""
        if not is_owner():
            return {room.refusal: gr.update(visible=True)}
        shown = _shown(room, getting, asking)
        if naming:
            model, release = getting.model, release_of(getting.model)
            shown[room.which]["value"] = release.model if release is not None else OTHER
            shown |= {room.model: model, room.family: getting.family or ""}
        return shown

    def then(action: Callable[..., None], naming: bool = False) -> Callable[..., dict[Block, Any]]:
        def act(*values: str) -> dict[Block, Any]:
            if is_owner():
                action(*values)
            return show(naming=naming)

        return act

    def pick(model: str) -> dict[Block, Any]:
        """Choose one of the releases; "Another" unfolds the box for its name."""
        if not is_owner():
            return show()
        if model == OTHER:
            return show() | {room.other: gr.update(open=True)}
        getting.choose(model)
        return show(naming=True)

    def on(event: Event, name: str, handler: Handler, inputs: Sequence[Block] | None = None) -> None:
        event(
            safely(handler), inputs, outputs, show_progress="hidden",
            api_visibility="private", api_name=f"models_{name}", concurrency_id="models", concurrency_limit=1,
        )  # fmt: skip

    on(blocks.load, "load", lambda: show(naming=True))
    on(tab.select, "select", lambda: show())
    on(room.timer.tick, "tick", lambda: show())
    on(room.install.click, "install", then(lambda: getting.start("install")))
    on(room.install_stop.click, "install_stop", then(lambda: getting.stop("install")))
    on(room.download.click, "download", then(lambda: getting.start("download")))
    on(room.verify.click, "verify", then(lambda: getting.start("verify")))
    on(room.stop.click, "stop", then(lambda: getting.stop("download")))
    on(room.delete.click, "ask", lambda: show(asking=True))
    on(room.keep.click, "keep", lambda: show())
    on(room.delete_now.click, "delete", then(getting.delete))
    for event in (room.model.submit, room.model.blur):  # a button pressed next applies to the name typed here
        on(event, "choose", then(getting.choose, naming=True), [room.model, room.family])
    on(room.family.input, "family", then(getting.choose, naming=True), [room.model, room.family])
    on(room.which.input, "which", pick, [room.which])


def _shown(room: Room, getting: Getting, asking: bool) -> dict[Block, Any]:
    """Return every component as it should be now, except what is chosen and typed."""
    libraries, state, best = look_at_libraries(), look(getting.model, getting.family), getting.best()
    installing, working = getting.status("install"), getting.status("download")
    busy_libraries = installing is not None and installing.state == RUNNING
    busy = working is not None and working.state == RUNNING
    here = state.state != "absent"
    if libraries.installed and not busy_libraries:
        installing = None
    question = ""
    if asking:
        size = gigabytes(ModelStore(state.model).bytes_on_disk())
        question = fill('<p class="tr-question">Delete {}? This frees {}.</p>', state.title, size)
    return {
        room.body: gr.update(visible=True),
        room.libraries: views.libraries_html(libraries, installing),
        room.install: gr.update(visible=libraries.can_install and not libraries.installed and not busy_libraries),
        room.install_stop: gr.update(visible=busy_libraries),
        room.chosen: views.model_head(state),
        room.which: gr.update(info=f"{best.title} fits this computer best." if best is not None else views.NO_CARD),
        room.about: views.about_html(getting.about(state.model)),
        room.checkpoint: views.model_html(state, working, free_bytes(state.folder)[0]),
        room.download: gr.update(
            visible=not busy and not state.local and state.state != "installed",
            value="Go on with the download" if here else "Download",
        ),
        room.stop: gr.update(visible=busy),
        room.verify: gr.update(visible=here and not busy and not state.local),
        room.delete: gr.update(visible=here and not busy and not state.local and not asking),
        room.confirm: gr.update(visible=asking and not busy),
        room.question: question,
        room.timer: gr.Timer(active=busy or busy_libraries),
    }
