//! What a session sets for its programs, and a machine without one lacks.

/// Starts the program again with `XDG_RUNTIME_DIR` where no session has set it: Mesa's Vulkan layer that chooses a device complains of
/// that at every start. Setting it for a process that runs already would not be safe.
pub fn ensure() {
    #[cfg(target_os = "linux")]
    if std::env::var_os("XDG_RUNTIME_DIR").is_none()
        && let Ok(program) = std::env::current_exe()
    {
        use std::os::unix::process::CommandExt;
        let mut arguments = std::env::args_os();
        let mut again = std::process::Command::new(&program);
        again.arg0(arguments.next().unwrap_or_else(|| program.into()));
        // It returns only where that fails, and the complaint does no harm.
        let _ = again.args(arguments).env("XDG_RUNTIME_DIR", std::env::temp_dir()).exec();
    }
}
