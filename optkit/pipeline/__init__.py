"""The run of a recipe.

    plan            checks a recipe before any work
    run             carries it out
    steps           makes one step, or reuses it
    bench, packages, ensembles      the benchmark and the packages of a run
    gates, measured_gates   limits of one artifact; budgets and regressions of a whole run
    baseline, compare, remeasure    an earlier run: read, compared, measured again
    pins            run.lock: what a run was made of, and what has changed since
    verify, verify_artifact, diff   a run, a file or a package checked against its records; two builds compared in words
    history         all runs so far
    records         what a run leaves on disk

Import its modules by their own names: an export needs one of them, and not the plans and measurements behind the others.
"""
