"""Render chat templates: those of the released families in this process, all others in a child with limits of time and memory.

A chat template is a program in Jinja. transformers runs it in a sandbox, which keeps it from the machine but neither from looping nor
from filling the memory. The child renders one prompt after the other; what it cannot render in time is refused, and it is killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import selectors
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.resources import files
from typing import Any

SECONDS = 20.0
"""For one prompt (our choice); a template of a released model needs a millisecond."""
START_SECONDS = 300.0
"""Until the child has imported transformers, on a busy machine."""
MEMORY_BYTES = 2**29
"""What rendering may allocate beyond what the imports did."""
MAX_ANSWER_BYTES = 2**24
"""Of one rendered prompt."""


class TemplateError(ValueError):
    """A template that cannot be rendered; the message is one sentence."""


def render(template: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """The text of a prompt, as `tokenizer.apply_chat_template` renders it. Raises TemplateError."""
    if _digest(template) in known_templates():
        return rendered(template, messages, options)
    return _child(template).ask(messages, options)


def rendered(template: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    """The text of a prompt, rendered in this process."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts = render_jinja_template(conversations=[[dict(message) for message in messages]], chat_template=template, **options)
    return (texts[0] if isinstance(texts, tuple) else texts)[0]


@lru_cache
def known_templates() -> frozenset[str]:
    """Digests of the templates in this package."""
    models = files("percasym") / "models"
    places = [folder for kind in ("released", "tiny") for folder in (models / kind).iterdir() if folder.is_dir()]
    return frozenset(_digest(file.read_text(encoding="utf-8")) for place in places if (file := place / "chat_template.jinja").is_file())


def _digest(template: str) -> str:
    return hashlib.sha256(template.encode("utf-8", "replace")).hexdigest()


@lru_cache(maxsize=2)
def _child(template: str) -> _Child:
    return _Child(template)


class _Child:
    """A process that renders one template."""

    def __init__(self, template: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._template, self._why = template, ""

    def ask(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        """The text of a prompt. Raises TemplateError, for good once the child had to be killed."""
        if self._why:
            raise TemplateError(self._why)
        if self._process is None:
            command = [sys.executable, "-m", "percasym.models.template"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self._end = weakref.finalize(self, _end, self._process)  # Also at the end of this process.
            self._say({"template": self._template}, START_SECONDS)
        answer = self._say({"messages": list(messages), "options": dict(options)}, SECONDS)
        if "error" in answer:
            raise TemplateError(f"The chat template of the checkpoint cannot be rendered ({answer['error']}).")
        return str(answer["text"])

    def _say(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = _line(process.stdout.fileno(), seconds)
            return dict(json.loads(line))
        except (OSError, ValueError) as error:
            self._end()
            reason = str(error) if isinstance(error, TimeoutError) else "it ended, or ran out of memory"
            self._why = f"The chat template of the checkpoint cannot be rendered ({reason}). Check model.path."
            raise TemplateError(self._why) from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and close its pipes."""
    process.kill()
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with suppress(OSError):  # Bytes that it never read.
            pipe.close()


def _line(descriptor: int, seconds: float) -> bytes:
    """One line from a pipe. Raises TimeoutError, and ValueError for a line that is too long or has no end."""
    data, deadline = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not data.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"it takes longer than {seconds:g} seconds")
            chunk = os.read(descriptor, 2**16)
            data += chunk
            if not chunk or len(data) > MAX_ANSWER_BYTES:
                raise ValueError
    return data


def main() -> None:
    """Answer questions on stdin, a line each, until it is closed: first the template, then prompts."""
    from transformers.utils import chat_template_utils  # noqa: F401, imported before memory is limited.

    template = json.loads(sys.stdin.readline())["template"]
    with open("/proc/self/statm", encoding="ascii") as memory:
        used = int(memory.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = {"text": rendered(template, question["messages"], question["options"])}
            if len(answer["text"]) > MAX_ANSWER_BYTES // 8:
                answer = {"error": "its text is too long"}
        except Exception as error:  # jinja's own types, and whatever a template raises.
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
