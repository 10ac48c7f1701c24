"""One kind of cell per file.

Each file has VERSION, Config, run(config, inputs, context) -> Record, and tables(config, record) -> the rows that the
cell adds to the columnar tables of results.h5, which is given the record without its arrays; and work(config, sizes) ->
Work, what a dry run says that run will do. A kind with Options and plan(planner, task, seed, options) -> Cell can be
named under `analyses` in a study. SHARDED says that run spreads its work through context.probe_map. An optional
PRIORITY (default 0) starts long cells first; an optional SHARES_GPU (default False) says that several may run on one
GPU at a time, because nothing in them plans with all of its memory; an optional trains(config) -> recipes says which of
its recipes a cell trains with, which processes may share, where these are not all of them. For `espalier run --smoke`
an analysis with an effort to choose has smoke(options) -> options of little effort, or SMOKE_MAX_WEIGHTS, above which
it is left out.
"""
