// A step that may be skipped: its chunks are empty then, and the tensor's count of steps stays behind. The host knows how many steps it
// recorded; the bias corrections follow here from those that were taken.

import package::{access::chunk::work_at, correction::corrected};
import package::tables::{Chunk, Scalars, scalars, tensors};

override SKIPS: bool = false;
override OWN_DECAY: bool = false;   // the GPU knows the rate of weight decay
override OWN_STEP: bool = false;    // the GPU knows a factor of the step
override OWN_WEIGHT: bool = false;  // the GPU knows `weight1`: 1 / mean of Adafactor's R, or c of schedule-free bases

fn skips() -> bool {
    if SKIPS { return tensors.skip == 1u; }
    return false;
}

fn chunk_at(index: u32) -> Chunk {
    var chunk = work_at(index);
    chunk.len = select(chunk.len, 0u, skips());
    return chunk;
}

fn scalars_of(chunk: Chunk) -> Scalars {
    var s = scalars[chunk.scalars];
    if SKIPS {
        // Both counts end at the last u32.
        s.t -= min(tensors.each[chunk.tensor].skipped, s.t - 1u);
        s = corrected(s);
    }
    if OWN_WEIGHT { s.weight1 = tensors.each[chunk.tensor].inverse_norm; }
    if OWN_STEP { s.step *= tensors.each[chunk.tensor].rate; }
    if OWN_DECAY { s.decay *= tensors.each[chunk.tensor].decay; }
    return s;
}
