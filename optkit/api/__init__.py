"""One file for each command. A function takes the options as arguments, prints nothing and returns the record that the command prints.

arguments       what the functions take: modules, data and functions in memory, or the text that the command line has for them
make            run one stage, prove its file, and put it in place only if it holds every limit
export, quantize, build_engine      one file is made
check, bench, compare               models are compared
inspect, lint                       a file, a machine or a repository is examined
package, packagable, migrate, smoke, load_test, ab      packages for servers, and running servers
open            a model file, open to be run
run             a recipe, from YAML or built in Python
repro           a script that repeats an export without optkit
showing         how records show themselves in a notebook and by print()
wording         messages for Python: arguments in the place of options
"""
