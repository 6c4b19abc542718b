"""The pieces of `export_zoo.py`: the models, one attempt to export one of them, and the judge of what was handed over."""
