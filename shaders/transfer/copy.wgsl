// Copies a word within a compute pass, where no command copies: the last word of one range to the last of another. Ranges begin where they
// can be bound.

@group(1) @binding(0) var<storage, read_write> from_words: array<u32>;
@group(1) @binding(1) var<storage, read_write> to_words: array<u32>;

@compute @workgroup_size(1)
fn copy() {
    to_words[arrayLength(&to_words) - 1u] = from_words[arrayLength(&from_words) - 1u];
}
