//! From Rust to JavaScript: promises, objects, slices of buffers.

use js_sys::{Array, Float32Array, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wgpu_optim::{Error, TensorSlice, wgpu};

/// What JavaScript throws: an `Error` with a `code`.
pub struct Thrown(js_sys::Error);

impl Thrown {
    pub(crate) fn new(code: &str, message: &str) -> Self {
        let error = js_sys::Error::new(message);
        Reflect::set(&error, &"code".into(), &code.into()).expect("an error takes any field");
        Self(error)
    }

    /// About an argument of the page's.
    pub(crate) fn options(message: &str) -> Self {
        Self::new("options", message)
    }
}

impl From<Error> for Thrown {
    fn from(error: Error) -> Self {
        Self::new(error.code(), &error.to_string())
    }
}

impl From<serde_json::Error> for Thrown {
    fn from(error: serde_json::Error) -> Self {
        Self::options(&error.to_string())
    }
}

impl From<wgpu::RequestDeviceError> for Thrown {
    fn from(error: wgpu::RequestDeviceError) -> Self {
        Self::new("no_device", &error.to_string())
    }
}

impl From<Thrown> for JsValue {
    fn from(Thrown(error): Thrown) -> Self {
        error.into()
    }
}

/// An object of these fields.
pub(crate) fn object<const N: usize>(fields: [(&str, JsValue); N]) -> JsValue {
    let object = Object::new();
    for (name, value) in fields {
        Reflect::set(&object, &name.into(), &value).expect("a new object takes any field");
    }
    object.into()
}

/// Objects as an array.
pub(crate) fn array(items: impl IntoIterator<Item = JsValue>) -> JsValue {
    items.into_iter().collect::<Array>().into()
}

/// A GPU's buffer as the browser knows it, and the range of a tensor in it: what `createBindGroup` takes for a resource.
pub(crate) fn slice(slice: TensorSlice<'_>) -> JsValue {
    let buffer = slice.buffer.as_webgpu().expect("the backend is WebGPU");
    object([("buffer", buffer.into()), ("offset", (slice.offset as f64).into()), ("size", (slice.size as f64).into())])
}

/// What is read, as an array of its own.
pub(crate) async fn floats(read: impl Future<Output = Result<Vec<f32>, Error>>) -> Result<Float32Array, Error> {
    Ok(Float32Array::from(read.await?.as_slice()))
}

/// A promise of what was begun when this is called. What went wrong rejects it, then or later.
pub(crate) fn promise<T: Into<JsValue>>(
    begun: Result<impl Future<Output = Result<T, Error>> + 'static, Thrown>,
) -> Promise {
    match begun {
        Err(error) => Promise::reject(&error.into()),
        Ok(future) => wasm_bindgen_futures::future_to_promise(async move {
            match future.await {
                Ok(value) => Ok(value.into()),
                Err(error) => Err(Thrown::from(error).into()),
            }
        }),
    }
}
