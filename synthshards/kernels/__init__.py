"""What the kernels of all tasks share: compilation, random words, permutations, copies, memory."""
