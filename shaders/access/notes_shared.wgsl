// Notes that several workgroups or lanes reach.

@group(2) @binding(0) var<storage, read_write> notes: array<atomic<u32>>;

fn load_notes(word: u32) -> u32 {
    return atomicLoad(&notes[word]);
}
