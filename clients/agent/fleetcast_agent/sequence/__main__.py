"""`python -m fleetcast_agent.sequence`: the commands about task sequences by themselves."""

import typer

from fleetcast_agent.sequence.commands import register

app = typer.Typer(no_args_is_help=True, add_completion=False)
register(app)

if __name__ == "__main__":
    app()
