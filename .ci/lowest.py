"""Print the lowest version of every dependency that pyproject.toml allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))["project"]
groups = [project["dependencies"], *project["optional-dependencies"].values()]
for requirement in [requirement for group in groups for requirement in group]:
    named = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", requirement)
    if named:
        print(f"{named[1]}=={named[2]}")
