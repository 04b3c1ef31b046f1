//! From Rust to JavaScript: promises, objects, slices of buffers.

use js_sys::{Array, Float32Array, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wgpu_optim::{Error, TensorSlice};

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
    begun: Result<impl Future<Output = Result<T, Error>> + 'static, JsError>,
) -> Promise {
    match begun {
        Err(error) => Promise::reject(&error.into()),
        Ok(future) => wasm_bindgen_futures::future_to_promise(async move {
            match future.await {
                Ok(value) => Ok(value.into()),
                Err(error) => Err(JsError::from(error).into()),
            }
        }),
    }
}
