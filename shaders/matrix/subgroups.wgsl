// For adapters that are CPUs with subgroups of 8: what costs there is loads, so that a workgroup, which is a subgroup, shares
// the 32 rows of its block, and an invocation has 8 columns of it, eight by two matrices in registers.
