//! What plain data carries to a device without knowing it.

use std::any::Any;
use std::sync::Arc;

/// A value of any type; equal to its clones only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attached(Option<Arc<dyn Any + Send + Sync>>);

impl Attached {
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn new(value: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(value)))
    }

    /// The value, if it is of this type.
    pub(crate) fn get<T: Any>(&self) -> Option<&T> {
        self.0.as_deref()?.downcast_ref()
    }
}

impl PartialEq for Attached {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }
}
