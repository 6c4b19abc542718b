"""Why an artifact won, and why the others did not."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optkit.pipeline.records import RunRecord


def choice_text(record: "RunRecord") -> str:
    """Return one line for each artifact: the winner first."""
    winner = record.winner
    if winner is None:
        made = [step for step in record.steps if step.made]
        lines = [f"  {step.name}: {'; '.join((*step.failures, *step.over_budget)) or 'not measured'}" for step in made]
        return "\n".join(["no winner", *lines])
    lost = [f"  {other.artifact}: {other.reason}" for other in winner.lost]
    return "\n".join([f"{winner.artifact} won: {winner.reason}", *lost])
