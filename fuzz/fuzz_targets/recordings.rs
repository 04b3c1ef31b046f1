//! Any bytes as recorded gradients, or as the header of their file: refused, or whole recordings.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/wgpu-optim-cli/src/recording.rs"]
mod recording;

const DATA: [u8; 48] = [0; 48];

/// Two parameters of two steps.
const HEADER: &str = r#"{"param.w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
    "grad.0.w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},"grad.1.w":{"dtype":"F32","shape":[1,2],"data_offsets":[16,24]},
    "param.b":{"dtype":"F32","shape":[2],"data_offsets":[24,32]},"grad.0.b":{"dtype":"F32","shape":[2],"data_offsets":[32,40]},
    "grad.1.b":{"dtype":"F32","shape":[2],"data_offsets":[40,48]}}"#;

fn file(header: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, &DATA].concat()
}

fn seeds() -> [Vec<u8>; 2] {
    [[&[0], &file(HEADER.as_bytes())[..]].concat(), [&[1], HEADER.as_bytes()].concat()]
}

fuzz_target!(init: wgpu_optim_fuzz::seed(seeds()), |input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let bytes = if kind % 2 == 0 { bytes.to_vec() } else { file(bytes) };
    let recordings = match recording::parse(&bytes) {
        Ok(recordings) => recordings,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let steps = recordings.values().next().expect("at least one").grads.len();
    for recording in recordings.values() {
        let numel: usize = recording.shape.iter().product();
        assert!(numel > 0 && recording.param.len() == numel);
        assert_eq!(recording.grads.len(), steps);
        assert!(recording.grads.iter().all(|grad| grad.len() == numel));
    }
});
