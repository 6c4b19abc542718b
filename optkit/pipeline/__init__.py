"""The run of a recipe.

    plan            checks a recipe before any work
    run             runs a plan
    steps           makes or reuses the artifact of one step
    bench, packages, ensembles      the benchmark and the packages of a run
    gates, measured_gates   limits of one artifact; budget and regression of a whole run
    baseline, compare, remeasure    read an earlier run, compare with it, measure its files again
    pins            run.lock: the versions, hashes and seeds of a run, and what differs from them now
    verify, verify_artifact, diff   compare a run, a file or a package with its records; compare two builds
    history         one line for each earlier run
    records         the records that a run writes

Import each module by its name: an export needs only one of them, and the others import the plan and the benchmark.
"""
