// Histograms, candidates and sums of squares: words that workgroups share.

@group(3) @binding(0) var<storage, read_write> counters: array<atomic<u32>>;
