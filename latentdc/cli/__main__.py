"""Entry point: ``latentdc`` and ``python -m latentdc.cli``."""

from __future__ import annotations

from latentdc.allocator import keep_freed_memory
from latentdc.cli import catalogue, compare, condense, convert, decode, evaluate, fit, inspect, push, requantise, sketch
from latentdc.cli.app import app

app.command()(condense.condense)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(decode.decode)
app.command()(convert.convert)
app.command()(inspect.inspect)
app.command()(requantise.requantise)
app.command()(push.push)
app.command()(catalogue.recipes)
app.command()(catalogue.cite)
app.add_typer(sketch.app, name="sketch")
app.add_typer(fit.app, name="fit")


def main() -> None:
    """Run the command line."""
    keep_freed_memory()
    app(prog_name="latentdc")


if __name__ == "__main__":
    main()
