"""How values are put into prompts: in DSPy's chat form, with no way for a value to open a field of its own.

File names, cells and logs reach prompts as values. DSPy writes them down as they are, so that a cell which holds
`[[ ## completed ## ]]` would end its field.
"""

from typing import Any

import dspy
from dspy.adapters.utils import format_field_value

from m3dspy.errors import break_fields


class _Unbroken:
    def format_user_message_content(self, signature: Any, inputs: dict[str, Any], *more: Any, **how: Any) -> str:
        fields = signature.input_fields
        shown = {
            name: break_fields(str(format_field_value(field, inputs[name])))
            for name, field in fields.items()
            if name in inputs
        }
        return super().format_user_message_content(signature, shown, *more, **how)  # pyright: ignore


class Json(_Unbroken, dspy.JSONAdapter):
    """The form that is tried where an answer in the chat form cannot be read."""


class Chat(_Unbroken, dspy.ChatAdapter):
    """The form of every prompt of ours."""

    def _make_json_adapter_fallback(self) -> Json:
        return Json()
