"""Start the worker: `python optkit/tensorrt/worker JOB.json`.

Python adds a folder that it runs to the path of imports, where a module such as `build` could hide a package of that name. So the folder is
removed from the path, and the worker is imported as a package that finds its own modules. This also uses their compiled files.
"""

import importlib
import os
import sys

if __name__ == "__main__":
    del sys.path[0]
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    importlib.import_module("worker")
    del sys.path[0]
    importlib.import_module("worker.jobs").run(sys.argv[1])
