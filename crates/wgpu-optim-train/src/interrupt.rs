//! Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// The exit status that shells give a program that Ctrl-C has ended.
pub const INTERRUPTED: u8 = 130;

/// A flag that the first Ctrl-C sets, so that the program can end after its step. The second Ctrl-C ends the program.
///
/// # Errors
/// If the process has a handler already.
pub fn on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        eprintln!("\nstopping after this step; press Ctrl-C again to stop at once");
    })?;
    Ok(stop)
}
