"""Names of language models, and the one class that talks to them."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # prices come from the installed package, not the network

import dspy
from dspy.utils import exceptions as dspy_errors
from pydantic import BaseModel

from m3dspy.errors import LMFailed, M3Error, Stopped, UsageError, unknown
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.rules import MODEL as RULES_MODEL
from m3dspy.programs.lms.rules import RulesEngine
from m3dspy.workspace.private import hidden

_BARE = {"gpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai", "claude-": "anthropic", "gemini-": "gemini"}
KEYS = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
}
_KEYLESS = ("openai", "hosted_vllm")
_CARRIAGE = ("api_key", "api_base", "timeout")
ANSWER_SECONDS = 300  # without a byte, after which a call is tried again
_call: ContextVar[tuple[str, float]] = ContextVar("key and start of the call")


class M3dLM(dspy.LM):
    """A language model that books every call and stops when a budget is spent.

    Args:
        name: `rules`, or a LiteLLM name: `gpt-4o`, `anthropic/claude-sonnet-4-5`, `ollama_chat/llama3.1`, or
            `openai/<any>` with `api_base`; `NAME@URL` is one with a server of its own.
        ledger: where calls are booked.
        api_base: address of an OpenAI-compatible server, e.g. `http://127.0.0.1:8000/v1`, for a name without one.
        settings: passed on to `dspy.LM` (temperature, num_retries, engine ...).
    Raises:
        UsageError: the name cannot be one.  Calls raise LMFailed where an answer is empty or cut off.

    `vital`: set it where nothing can go on without this model: once it cannot be had, a call stops hard (`Stopped`)
    instead of raising an error that optimizers swallow.
    """

    def __init__(self, name: str, ledger: Ledger, api_base: str | None = None, **settings: Any):
        self.ledger, self.vital = ledger, False
        settings = {"cache": False, "timeout": ANSWER_SECONDS, **settings}  # answers are kept by the ledger
        if name == "rules":
            super().__init__(RULES_MODEL, engine=RulesEngine(), cache=False)
            return
        name, own = at_server(name)
        if own and name == "rules":
            raise UsageError(f"rules is built in and has no server; got rules@{own}. Use --lm rules.")
        model, api_base = full_name(name), own or api_base
        provider = model.partition("/")[0]
        if api_base:
            settings["api_base"] = api_base
            if provider in _KEYLESS and not os.environ.get(KEYS.get(provider, "")):
                settings["api_key"] = "none"
        elif (key := KEYS.get(provider)) and not os.environ.get(key):
            raise UsageError(f"{name} needs a key: export {key}=..., or name a local server with --api-base.")
        super().__init__(model, **settings)

    @property
    def is_rules(self) -> bool:
        """Whether the answers come from the built-in rules, and so from us."""
        return self.model == RULES_MODEL

    def __deepcopy__(self, memo: dict) -> "M3dLM":
        return self  # DSPy copies the LM with every program, and its history with it

    def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        prompt, messages = hidden(prompt), hidden(messages)
        key = self._key(prompt, messages, kwargs)
        with self.ledger.asking(key) as known:
            if not known:
                self._begin(key)
                try:
                    super().__call__(prompt, messages=messages, **kwargs)
                except dspy_errors.LMError as error:
                    if self.vital and _is_down(error):
                        raise Stopped(str(explain(error, self))) from error
                    raise
        answer, finish = self.ledger.answer(key)
        if finish == "length":
            raise LMFailed(
                f"{self.model} reached its limit of output tokens and left its answer unfinished. "
                "Use a language model that may answer at greater length."
            )
        if not any(answer):
            raise LMFailed(f"{self.model} gave an empty answer (it ended with {finish!r}). Try another language model.")
        return answer

    async def acall(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        self._begin(self._key(prompt, messages, kwargs))
        return await super().acall(prompt, messages=messages, **kwargs)

    def _begin(self, key: str) -> None:
        self.ledger.admit(free=self.is_rules)
        _call.set((key, time.perf_counter()))

    def update_history(self, entry: dict[str, Any]) -> None:
        key, began = _call.get()
        seconds, finish = time.perf_counter() - began, finish_reason(entry["response"])
        self.ledger.add(entry, seconds, free=self.is_rules, key=key, finish=finish)

    def _key(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> str:
        """What an answer is remembered by: the model, the question and every parameter but where and how it is sent."""
        asked = {"prompt": prompt, "messages": messages, **self.kwargs, **kwargs}
        asked = {name: value for name, value in asked.items() if name not in _CARRIAGE}
        text = json.dumps([self.model, asked], sort_keys=True, default=_spelled)
        return hashlib.sha256(text.encode()).hexdigest()


def distinct(names: Iterable[str], ledger: Ledger, api_base: str | None = None) -> dict[str, M3dLM]:
    """One LM for every distinct name.

    Raises: UsageError: a name cannot be one, or two are one model at two servers.
    """
    lms = {name: M3dLM(name, ledger, api_base) for name in dict.fromkeys(names)}
    seen: dict[str, str] = {}
    for name, lm in lms.items():
        if (other := seen.setdefault(lm.model, name)) != name:
            raise UsageError(
                f"{other} and {name} are one model by name, so that no ledger could tell them apart. "
                "Serve them under two names, or use one of them."
            )
    return lms


def price(name: str) -> tuple[float, float] | None:
    """Dollars a token, read and written, by the list that comes with DSPy; None where it does not say.

    >>> price("gpt-4o")
    (2.5e-06, 1e-05)
    """
    if name == "rules":
        return 0.0, 0.0
    from dspy.clients.model_metadata import model_info, rate

    info = model_info(*full_name(at_server(name)[0]).split("/", 1))
    read, written = rate(info, "input_cost_per_token"), rate(info, "output_cost_per_token")
    return None if read is None or written is None else (read, written)


def at_server(name: str) -> tuple[str, str | None]:
    """The name of an LM and the server that it names, if it does.

    >>> at_server("openai/qwen@http://127.0.0.1:8000/v1"), at_server("vertex_ai/claude-opus-4@20250514")
    (('openai/qwen', 'http://127.0.0.1:8000/v1'), ('vertex_ai/claude-opus-4@20250514', None))
    """
    name, *server = re.split(r"@(?=https?://)", name, maxsplit=1)
    return name, server[0] if server else None


def finish_reason(response: Any) -> str | None:
    """Why a response ended: "stop", "length" ... as the native client or LiteLLM tells it."""
    choices = getattr(response, "choices", None)
    return getattr(choices[0] if choices else response, "finish_reason", None)


def _is_down(error: dspy_errors.LMError) -> bool:
    """Whether the next question will fare no better: all but a single question that the model cannot take."""
    one_question = isinstance(error, dspy_errors.LMInvalidRequestError)
    return not one_question or isinstance(error, dspy_errors.LMUnsupportedModelError)


def _spelled(value: Any) -> Any:
    """A parameter that is not JSON, in a spelling that is the same in every process."""
    is_model = isinstance(value, type) and issubclass(value, BaseModel)
    return value.model_json_schema() if is_model else str(value)


def full_name(name: str) -> str:
    """`gpt-4o` -> `openai/gpt-4o`; a name with a provider stays as it is.

    >>> full_name("claude-sonnet-4-5")
    'anthropic/claude-sonnet-4-5'
    """
    if "/" in name:
        return name
    for prefix, provider in _BARE.items():
        if name.startswith(prefix):
            return f"{provider}/{name}"
    examples = ["rules", "gpt-4o", "gpt-4o-mini", "anthropic/claude-sonnet-4-5", "ollama_chat/llama3.1", "openai/<any>"]
    raise unknown("language model", name, examples)


def preflight(lm: M3dLM) -> None:
    """One call before any work.

    Raises: LMFailed or UsageError: one line that names the fix.
    """
    try:
        lm("Reply with the single word: ready")
    except dspy_errors.LMError as error:
        raise explain(error, lm) from error


def explain(error: Exception, lm: M3dLM) -> M3Error:
    """An error of DSPy as one line for the person."""
    where = f" at {lm.kwargs['api_base']}" if lm.kwargs.get("api_base") else ""
    name, what = f"{lm.model}{where}", " ".join(str(error).split())[:200]
    key = KEYS.get(lm.model.partition("/")[0], "the provider's key")
    for kind, line in (
        ("LMUnsupportedModelError", f"There is no model {name}: {what} Check the name given with --lm."),
        ("LMAuthError", f"{name} refused the key: {what} Check {key}."),
        ("LMNotConfiguredError", f"{name} is not set up: {what} Set {key}."),
        ("LMBillingError", f"{name} is not paid for: {what} Add credit, or use another --lm."),
        ("LMRateLimitError", f"{name} is out of quota: {what} Wait, or use another --lm."),
        ("LMTimeoutError", f"{name} did not answer in time: {what} Try again, or use another --lm."),
        ("LMServerError", f"{name} has trouble of its own: {what} Try again later, or use another --lm."),
        ("LMTransportError", f"{name} cannot be reached: {what} Is the server running? Check --api-base."),
    ):
        if isinstance(error, getattr(dspy_errors, kind, ())):
            return UsageError(line) if kind == "LMUnsupportedModelError" else LMFailed(line)
    return LMFailed(f"{name} failed: {what}")
