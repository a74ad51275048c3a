"""The mistakes of weak language models, each a change to the right answer of one question; a file a role."""

from lms.mistakes import design, form, plan, prepare, smoke

MISTAKES = (form.PROSE, *plan.MISTAKES, *prepare.MISTAKES, *design.MISTAKES, *smoke.MISTAKES)
