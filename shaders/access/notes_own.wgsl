// Notes of a chunk that no other workgroup reaches.

@group(2) @binding(0) var<storage, read_write> notes: array<u32>;

fn load_notes(word: u32) -> u32 {
    return notes[word];
}
