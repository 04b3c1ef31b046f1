#![doc = include_str!("../README.md")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, io};

/// The environment variable that names the default folder.
pub const VARIABLE: &str = "WGPU_OPTIM_CACHE";

/// The largest file that is read, in bytes. Drivers only add to a cache, so a larger one counts as empty.
const MOST: u64 = 64 << 20;

/// The bytes of a checksum.
const CHECKSUM: usize = size_of::<u32>();

/// The pipelines that a device has compiled, with the file that keeps them.
#[derive(Debug)]
pub struct PipelineCache {
    cache: wgpu::PipelineCache,
    file: PathBuf,
    was_read: bool,
    /// The checksum of what the file holds, if that is usable.
    kept: Mutex<Option<u32>>,
}

impl PipelineCache {
    /// Opens the cache of a device in the [default folder](default_folder). Returns `None` if there is no such folder, and where
    /// [`open`](Self::open) does.
    pub fn open_default(device: &wgpu::Device) -> Option<Self> {
        Self::open(device, default_folder()?)
    }

    /// Opens the cache of a device in a folder, which [`save`](Self::save) makes if there is none. Drivers trust what they read there, so
    /// only those who may change the program should be able to write into it. A file that is missing, corrupt, of another driver or
    /// larger than 64 MiB counts as empty. Returns `None` if the device was made without the feature `PIPELINE_CACHE`, if it is lost, or
    /// if its backend has no caches.
    ///
    /// ```no_run
    /// fn open(device: &wgpu_optim::wgpu::Device) -> Option<wgpu_optim_cache::PipelineCache> {
    ///     wgpu_optim_cache::PipelineCache::open(device, "target/pipelines")
    /// }
    /// ```
    pub fn open(device: &wgpu::Device, folder: impl AsRef<Path>) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder.as_ref().join(wgpu::util::pipeline_cache_key(&device.adapter_info())?);
        let is_small = fs::metadata(&file).is_ok_and(|found| found.len() <= MOST);
        let bytes = is_small.then(|| fs::read(&file).ok()).flatten();
        let data = bytes.as_deref().and_then(unsealed);
        if data.is_none() && file.exists() {
            log::warn!("{} is not a usable pipeline cache; it will be rewritten", file.display());
        }
        // wgpu reports data of another adapter as an error.
        let (cache, data) = match create(device, data) {
            Ok(cache) => (cache, data),
            Err(error) => {
                log::warn!("{} will be rewritten: {error}", file.display());
                (create(device, None).ok()?, None)
            }
        };
        Some(Self { cache, file, was_read: data.is_some(), kept: Mutex::new(data.map(crc32fast::hash)) })
    }

    /// The cache, for [`ParamGroups::with_pipeline_cache`](https://docs.rs/wgpu-optim/latest/wgpu_optim/struct.ParamGroups.html) and for
    /// descriptors of pipelines.
    pub fn handle(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// The file of this adapter.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether the file was whole and of this adapter. The driver may still compile again, after an update for example.
    pub fn was_read(&self) -> bool {
        self.was_read
    }

    /// [`save`](Self::save) for programs that go on without: an error is a warning in the log.
    pub fn save_or_warn(&self) {
        if let Err(error) = self.save() {
            log::warn!("cannot keep compiled pipelines in {}: {error}", self.file.display());
        }
    }

    /// Writes the file if there is something new, all of it or nothing. Returns whether it did.
    ///
    /// # Errors
    /// What the file system says. The program can go on; its next run will compile the pipelines again.
    pub fn save(&self) -> io::Result<bool> {
        let data = self.cache.get_data().unwrap_or_default();
        let checksum = crc32fast::hash(&data);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if data.is_empty() || *kept == Some(checksum) {
            return Ok(false);
        }
        let folder = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(&checksum.to_le_bytes())?;
        temporary.write_all(&data)?;
        temporary.persist(&self.file)?;
        *kept = Some(checksum);
        Ok(true)
    }
}

/// The folder that the environment variable [`VARIABLE`] names, or `wgpu-optim` in the user's folder of caches. Returns `None` if the
/// variable is empty or the user has no such folder.
pub fn default_folder() -> Option<PathBuf> {
    match env::var_os(VARIABLE) {
        Some(folder) if folder.is_empty() => None,
        Some(folder) => Some(folder.into()),
        None => Some(dirs::cache_dir()?.join("wgpu-optim")),
    }
}

fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Result<wgpu::PipelineCache, wgpu::Error> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};

    let scopes = [Validation, OutOfMemory, Internal].map(|kind| device.push_error_scope(kind));
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgpu-optim.cache"), data, fallback: true };
    // SAFETY: The data must be what `PipelineCache::get_data` returned before. `save` writes nothing else, and its checksum holds, so the
    // file was neither cut nor altered by accident. wgpu refuses data of another driver, device or version of its own by its header. Who
    // could forge a file with a checksum is one who may change the program: `open` says so.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
    // All scopes are closed, in their order.
    match errors.fold(None, Option::or) {
        Some(error) => Err(error),
        None => Ok(cache),
    }
}

/// What follows a checksum that holds.
fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    let (checksum, data) = bytes.split_at_checked(CHECKSUM)?;
    (checksum == crc32fast::hash(data).to_le_bytes()).then_some(data)
}
