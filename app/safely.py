"""Between the page and its handlers: whatever goes wrong is said on the page, in words a person can act on."""

from __future__ import annotations

import functools
import html
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from engine.errors import TroupeError

log = logging.getLogger("troupe")


def safely(handler: Callable, markup: bool = True) -> Callable:
    """The handler, with every error turned into a message: a stranger sees no stack trace, and nothing is silent.
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


@contextmanager
def _told(markup: bool) -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except TroupeError as error:
        raise gr.Error(
            html.escape(str(error)) if markup else str(error), title="Not yet", print_exception=False
        ) from None
    except OSError as error:
        log.exception("a handler could not read or write")
        reason = html.escape(error.strerror or type(error).__name__)
        said = f"The outputs folder cannot be used ({reason}). Check its disk, then try again."
        raise gr.Error(said, print_exception=False) from None
    except Exception:
        log.exception("a handler failed")
        said = "Something went wrong inside Troupe. The console shows the details."
        raise gr.Error(said, print_exception=False) from None
