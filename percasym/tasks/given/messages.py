"""Chat rows as the columns query, response and image: `messages` (OpenAI, LLaMA-Factory, ms-swift) and `conversations` (LLaVA, ShareGPT).

One turn is trained: a question, its picture, its response. A system message is put before the question, because a prompt has one text;
rows of several turns, other roles, and videos or sounds are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ROLES = {
    "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "chatgpt": "assistant", "system": "system",
}  # fmt: skip
"""Names of the three roles in chat files."""

IMAGE_TAG = "<image>"
"""The placeholder of LLaVA, LLaMA-Factory and ms-swift."""
OTHER_TAGS = ("<video>", "<audio>")

_AT_AN_END = re.compile(rf"\A\s*{IMAGE_TAG}[ \t]*\n?|\s*{IMAGE_TAG}\s*\Z")


def columns_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record itself, or that of a chat row with its turns as `query` and `response`, its system message as `system`.

    >>> columns_of({"conversations": [{"from": "human", "value": "<image>2?"}, {"from": "gpt", "value": "Yes."}], "image": "a.png"})
    {'image': 'a.png', 'query': '<image>2?', 'response': 'Yes.'}

    Raises ValueError with the reason when the row is not one turn about one picture.
    """
    for name in ("videos", "audios", "video", "audio"):
        if record.get(name):
            raise ValueError(f"it has {name}, and only pictures are trained.")
    if record.get("history"):
        raise ValueError("it has a history, and one turn (a question and its response) is trained for each row.")
    named = [name for name in ("messages", "conversations") if name in record]
    if not named:
        return record
    if len(named) > 1:
        raise ValueError("it has both messages and conversations. Leave one out.")
    name, rest = named[0], {key: value for key, value in record.items() if key not in named}
    turns, pictures = _turns(record[name], name)
    system = [text for role, text in turns if role == "system"]
    talk = [(role, text) for role, text in turns if role != "system"]
    roles = [role for role, _ in talk]
    if roles[:2] != ["user", "assistant"] or system != [text for role, text in turns[:1] if role == "system"]:
        raise ValueError(f"its {name} must be a question and its response, got the roles {', '.join(role for role, _ in turns) or 'none'}.")
    if len(roles) > 2:
        raise ValueError(f"its {name} have {roles.count('assistant')} responses, and one turn (a question and its response) is trained.")
    if pictures:
        if "image" in rest or "images" in rest:
            raise ValueError(f"its pictures stand in {name} and in a column of their own.")
        rest["image"] = pictures
    said = {"query": talk[0][1], "response": talk[1][1], **({"system": system[0]} if system and system[0].strip() else {})}
    if twice := [column for column in said if rest.get(column, said[column]) != said[column]]:
        raise ValueError(f"its {twice[0]} is {rest[twice[0]]!r:.40}, and its {name} say {said[twice[0]]!r:.40}.")
    return {**rest, **said}


def without_image_tag(query: str) -> tuple[str, bool]:
    """The question without the picture's placeholder, and whether it had one; the family's template puts the picture first.

    >>> without_image_tag("<image>\\nHow many?"), without_image_tag("How many?\\n<image>"), without_image_tag("How many?")
    (('How many?', True), ('How many?', True), ('How many?', False))

    Raises ValueError for several placeholders, and for one in the middle of the text.
    """
    number = query.count(IMAGE_TAG)
    if not number:
        return query, False
    if number > 1:
        raise ValueError(f"its query has {number} placeholders {IMAGE_TAG}, and one picture is trained for each row.")
    rest, found = _AT_AN_END.subn("", query, count=1)
    if not found:
        raise ValueError(f"its query has {IMAGE_TAG} in the middle, and the picture stands before the question. Move it to the front.")
    return rest, True


def refuse_tags(name: str, text: str) -> None:
    """Raise ValueError for a placeholder in a text that has no place for one."""
    for tag in (*OTHER_TAGS, IMAGE_TAG) if name != "query" else OTHER_TAGS:
        if tag in text:
            raise ValueError(f"its {name} holds the placeholder {tag}, which would be trained as text. Remove it.")


def _turns(messages: object, name: str) -> tuple[list[tuple[str, str]], list[Any]]:
    """(role, text) of each message, and the pictures inside them."""
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(f"its {name} must be a list of messages, got {messages!r:.60}.")
    turns, pictures = [], list[Any]()
    for message in messages:
        if not isinstance(message, Mapping):
            raise ValueError(f"its {name} must hold messages with a role and a content, got {message!r:.60}.")
        said = message.get("role", message.get("from"))
        if not isinstance(said, str) or said.lower() not in ROLES:
            raise ValueError(f"its {name} have the role {said!r:.40}; the roles are {', '.join(ROLES)}.")
        text, inside = _content(message.get("content", message.get("value")), name)
        if inside and ROLES[said.lower()] != "user":
            raise ValueError(f"a picture of its {name} stands in a message of the role {said}.")
        turns.append((ROLES[said.lower()], text))
        pictures += inside
    return turns, pictures


def _content(content: object, name: str) -> tuple[str, list[Any]]:
    """The text of a message, with `<image>` where a picture stands elsewhere than first among its parts, and these pictures."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list | tuple):
        raise ValueError(f"a message of its {name} must have text or a list of parts, got {content!r:.60}.")
    texts, pictures = list[str](), list[Any]()
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            texts.append(IMAGE_TAG)
            value = part.get("image_url", part.get("image", part.get("path", part.get("url"))))
            value = value.get("url") if kind == "image_url" and isinstance(value, Mapping) else value
            if value is not None:  # {"type": "image"} marks the place of a picture in the column `images`.
                pictures.append(value)
        else:
            raise ValueError(f"a message of its {name} has a part of type {kind!r:.40}; the parts are text, image and image_url.")
    if texts.count(IMAGE_TAG) == 1 and texts[0] == IMAGE_TAG:  # It stands where the template puts it.
        texts = texts[1:]
    return "".join(texts), pictures
