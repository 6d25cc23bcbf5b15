"""What a backbone is, before anything is built or trained: python examples/01_describe.py

The same on the command line: nas describe scr_resnet50 --input 800x1088
"""

from search_spaces.catalog import get_architecture
from search_spaces.cost import cost, trf
from search_spaces.families import family_of

for name in ("resnet50", "scr_resnet50", "spinenet49"):
    architecture = get_architecture(name)
    found = cost(architecture, (640, 640))
    print(f"{name}  {family_of(architecture).text(architecture)}")
    print(f"  {found.params:,} parameters, {found.macs:,} multiply-adds at 640 px")
    fields = trf(architecture)
    for level, shape in family_of(architecture).levels(architecture).items():
        print(
            f"  {level}: {shape.channels} channels, stride {shape.stride}, sees {fields[level]} px of the image"
        )

# An architecture is plain data with a digest that is the same everywhere; files and caches are named by it.
print(get_architecture("scr_resnet50").digest, get_architecture("scr_resnet50").to_dict()["genes"])
