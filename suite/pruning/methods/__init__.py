"""One pruning method per file.

Each file has LABEL, VERSION (raise it when the numbers change: results of two versions are never mixed), PRUNES (False
for a reference that ignores the sparsity), Options and find_ticket(search, options) -> Ticket. Optional functions are
described in suite.pruning.contract.
"""
