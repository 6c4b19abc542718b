"""The parts of `export_zoo.py`: the models, the export of one model, and the judge of the files."""
