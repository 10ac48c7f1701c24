"""Where cells run. A launcher is one file with NAME, DESCRIPTION and run(plan, folder, workers=, report=).

It moves cells somewhere, calls report(event) as they start, advance and end, and returns one outcome per cell. It knows
nothing of science; its library is imported inside run. inline is the reference that all others are tested against.
One that queues on a cluster has NEEDS_PROFILE = True as well, and its run takes profile=.
"""
