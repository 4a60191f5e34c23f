"""Error handling around the page's handlers: every error becomes a message on the page that a person can act on."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from markupsafe import escape

from engine.errors import TroupeError
from engine.words import plain_name, plain_text

_FIRST_INPUTS = 9  # of /generate, as first documented; those that it has learnt since have defaults
Event = Callable[..., Any]  # of a component, such as `button.click`: called with the handler to attach
Handler = Callable[..., Any]  # what is called, with a value for each input
log = logging.getLogger("troupe")

_SHOWN = 200  # characters of what somebody sent
_UNFIT = "This call cannot be understood. 'Use via API' on the page shows how."


def safely(handler: Handler, markup: bool = True) -> Handler:
    """Wrap a handler so that every error becomes a message: strangers see no stack trace, and no error is silent.
    `markup`: the message is shown as HTML, as Gradio does on the page, so what people wrote is escaped in it."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with _told(markup):
                yield from handler(*args, **kwargs)

        return generate

    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _told(markup):
            return handler(*args, **kwargs)

    return call


class SafeBlocks(gr.Blocks):
    """Blocks that log one short line for a malformed call, where Gradio prints a traceback with all that was sent.
    Errors of ours are still printed."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **more: Any) -> Any:
        if block_fn.api_visibility == "public" and len(inputs) >= _FIRST_INPUTS:  # a client of an earlier version
            inputs = [*inputs, *(getattr(each, "value", None) for each in block_fn.inputs[len(inputs) :])]
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **more)
        except Exception as error:
            said = plain_text(str(error))[:_SHOWN]
            log.info("a call of %r does not fit: %s: %r", block_fn.api_name, type(error).__name__, said)
            said = str(escape(said)) if isinstance(error, gr.Error) else _UNFIT
            raise gr.Error(said, title="Not yet", print_exception=False) from None

    async def call_function(self, block_fn: Any, *args: Any, **more: Any) -> Any:
        known = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        if not known.fn:  # what the browser does by itself
            raise gr.Error(_UNFIT, title="Not yet", print_exception=False)
        return await super().call_function(block_fn, *args, **more)


@contextmanager
def _told(markup: bool) -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except TroupeError as error:
        said = plain_name(str(error))
        raise gr.Error(str(escape(said)) if markup else said, title="Not yet", print_exception=False) from None
    except OSError as error:
        log.exception("a handler could not read or write")
        reason = escape(error.strerror or type(error).__name__)
        said = f"The outputs folder cannot be used ({reason}). Check its disk, then try again."
        raise gr.Error(said, print_exception=False) from None
    except Exception:
        log.exception("a handler failed")
        said = "Something went wrong inside Troupe. The console shows the details."
        raise gr.Error(said, print_exception=False) from None
