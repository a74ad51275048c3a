"""Names of language models, and the one class that talks to them."""

import os
import time
from contextvars import ContextVar
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # prices come from the installed package, not the network

import dspy
from dspy.utils import exceptions as dspy_errors

from m3dspy.errors import LMFailed, M3Error, UsageError, unknown
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.rules import MODEL as RULES_MODEL
from m3dspy.programs.lms.rules import RulesEngine

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
_began: ContextVar[float] = ContextVar("began")


class M3dLM(dspy.LM):
    """A language model that books every call and stops when a budget is spent.

    Args:
        name: `rules`, or a LiteLLM name: `gpt-4o`, `anthropic/claude-sonnet-4-5`, `ollama_chat/llama3.1`, or
            `openai/<any>` with `api_base`.
        ledger: where calls are booked.
        api_base: address of an OpenAI-compatible server, e.g. `http://127.0.0.1:8000/v1`.
        settings: passed on to `dspy.LM` (temperature, num_retries, engine ...).
    Raises: UsageError: the name cannot be one.
    """

    def __init__(self, name: str, ledger: Ledger, api_base: str | None = None, **settings: Any):
        self.ledger = ledger
        if name == "rules":
            super().__init__(RULES_MODEL, engine=RulesEngine(), cache=False, **settings)
            return
        model = full_name(name)
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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._begin()
        return super().__call__(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        self._begin()
        return await super().acall(*args, **kwargs)

    def _begin(self) -> None:
        self.ledger.admit(free=self.is_rules)
        _began.set(time.perf_counter())

    def update_history(self, entry: dict[str, Any]) -> None:
        self.ledger.add(entry, time.perf_counter() - _began.get(), free=self.is_rules)


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
        ("LMTransportError", f"{name} cannot be reached: {what} Is the server running? Check --api-base."),
    ):
        if isinstance(error, getattr(dspy_errors, kind, ())):
            return UsageError(line) if kind == "LMUnsupportedModelError" else LMFailed(line)
    return LMFailed(f"{name} failed: {what}")
