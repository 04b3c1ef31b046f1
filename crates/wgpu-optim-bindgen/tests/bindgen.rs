//! The command, where something is wrong; `scripts/web.sh` is where nothing is.

use std::process::Command;

#[test]
fn what_is_no_module_is_an_error_that_names_it() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    for module in ["no/such/module.wasm", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_wgpu-optim-bindgen")).args([module, "--out", folder]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(module), "{said}");
    }
}
