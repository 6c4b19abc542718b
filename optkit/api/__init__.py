"""One file for each command. A function takes the options as arguments, prints nothing and returns the record that the command shows.

arguments       converts arguments: modules, data and functions in memory, or the same text that the command line takes
make            runs one stage, verifies its file, and moves the file into place only if it passes all gates
export, quantize, build_engine, compile      make one file
check, bench, compare               compare models
inspect, lint                       examine a file, a machine or a repository
package, packagable, migrate, smoke, load_test, ab      packages for servers, and running servers
verify          compares files with their records; explains what changed between two builds
open            opens a model file to run it
run             runs a recipe from YAML or Python
repro           writes a script that repeats an export without optkit
showing         the display of records in a notebook and by print()
wording         rewrites messages for Python: arguments instead of options
"""
