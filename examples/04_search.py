"""A whole search in under a minute, from a recipe to a report: python examples/04_search.py [DIR]

The same on the command line: nas search examples/recipes/first_search.yaml --run runs/examples/search
"""

import sys
from pathlib import Path

from nas.methods.catalog import check_search, procedure
from nas.progress import ConsoleProgress
from nas.run import Run
from nas.show import summary
from nas.targets import read_recipe

if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples") / "search"
    path = Path(__file__).parent / "recipes/first_search.yaml"
    # Every mistake in a recipe is reported here, all at once, before anything is spent.
    recipe = check_search(read_recipe(path, []), source=str(path))
    procedure(recipe).check_recipe(recipe, source=str(path))
    run = Run.open(directory) if (directory / "recipe.yaml").exists() else Run.create(directory, recipe)
    with ConsoleProgress() as progress:
        procedure(recipe).carry_out(run, progress)

    found = summary(directory)
    print(f"{found['winner']['text']} after {len(found['trials'])} trials; it has cost {found['cost_line']}")
    print(f"open {directory / 'report.html'}: it says whether to believe it")
