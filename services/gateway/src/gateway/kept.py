"""A stream of which the token ids are kept, so that it can go on elsewhere when its engine is lost. Pure.

The engine is asked for `return_token_ids`; what the client did not ask for is set back to null in the bytes.
"""

import re

from gateway.sse import Stream

_IDS = re.compile(rb'"token_ids":\[([0-9,]*)\]')
_PROMPT_IDS = re.compile(rb'"prompt_token_ids":\[([0-9,]*)\]')
_TEXT = re.compile(rb'"(?:content|text)":"[^"]')
_FINISHED = re.compile(rb'"finish_reason":"(?!abort")')
_OTHER = (b'"reasoning', b'"tool_calls":[')
_COMMON = b'"finish_reason":null,"token_ids":['
_COMMON_SHOWN = b'"finish_reason":null,"token_ids":null}]}\n\n'
_COMMON_TAIL = re.compile(
    rb'([0-9,]+)\]\}\],"usage":\{"prompt_tokens":(\d+),"total_tokens":\d+,"completion_tokens":(\d+)[^{}]*\}\}\n\n\Z'
)


class Kept(Stream):
    """As Stream. Ids are kept as the engine wrote them: `12,345`."""

    __slots__ = ("_ahead", "_hides", "_ids", "_show_ids", "finished", "first", "other", "prompt_ids")

    def __init__(self, *, show_usage: bool, show_continuous: bool, show_ids: bool = False) -> None:
        super().__init__(show_usage=show_usage, show_continuous=show_continuous)
        self._show_ids = show_ids
        self._hides = not show_ids and not show_continuous
        self._ids: list[bytes] = []
        self._ahead: list[bytes] = []
        self.prompt_ids: bytes | None = None
        self.first = b""
        """The first event, which names the reply."""
        self.finished = False
        """The reply's last token has come; only usage and `[DONE]` may be missing."""
        self.other = False
        """Something else than text has been delivered, which ids alone do not carry on."""

    @property
    def ids(self) -> bytes:
        """Of the tokens whose text has been delivered.

        A token that ends inside a character has no text yet, and an engine that begins there writes garbage: such ones
        are left out, and generated again.
        """
        return b",".join(self._ids)

    @property
    def resumable(self) -> bool:
        return self.prompt_ids is not None and not self.other

    def _event(self, event: bytes) -> bytes:
        # nearly every event: text with its ids in the middle of a reply, of which the client sees neither ids nor usage
        if self._hides and self.events and (at := event.rfind(_COMMON)) >= 0:
            tail = _COMMON_TAIL.match(event, at + len(_COMMON))
            if tail is not None and _TEXT.search(event, 0, at):
                ids, prompt, completion = tail.groups()
                self.events += 1
                self.input_tokens, self.output_tokens = int(prompt), int(completion)
                if self._ahead:
                    self._ids += self._ahead
                    self._ahead.clear()
                self._ids.append(ids)
                return event[:at] + _COMMON_SHOWN
        return self._any_event(event)

    def _any_event(self, event: bytes) -> bytes:
        if not self.events and self.prompt_ids is None and (found := _PROMPT_IDS.search(event)):
            self.prompt_ids = found[1]
            if not self._show_ids:
                event = event[: found.start()] + b'"prompt_token_ids":null' + event[found.end() :]
        ids = _IDS.search(event)
        if ids is not None and not self._show_ids:
            event = event[: ids.start()] + b'"token_ids":null' + event[ids.end() :]
        if not self.first and event.startswith(b"data: {"):
            self.first = event
        seen = super()._event(event)
        if ids is not None and not self.aborted:
            self._keep(event, ids[1])
        return seen

    def _keep(self, event: bytes, ids: bytes) -> None:
        if ids:
            self._ahead.append(ids)
        if _TEXT.search(event):
            self._ids += self._ahead
            self._ahead.clear()
        elif any(part in event for part in _OTHER):
            self.other = True
        if _FINISHED.search(event):
            self.finished = True
