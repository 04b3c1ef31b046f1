//! Recorded parameters and gradients, as `wgpu-optim replay` reads them from safetensors.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::Dtype;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// A tensor's recording.
pub struct Recording {
    pub shape: Vec<usize>,
    pub param: Vec<f32>,
    /// The gradient of each step.
    pub grads: Vec<Vec<f32>>,
}

/// Shape and values of each step's gradient.
type Steps = BTreeMap<usize, (Vec<usize>, Vec<f32>)>;

/// Recordings by name: each with its shape, and all with gradients of as many steps.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Recording>> {
    let mut recordings = BTreeMap::new();
    let mut grads: BTreeMap<String, Steps> = BTreeMap::new();
    for (key, tensor) in tensors(bytes).context("not a safetensors file")? {
        if let Some(name) = key.strip_prefix("param.") {
            ensure!(!name.is_empty(), "tensor `{key}` has no name");
            let param = tensor.values(&key)?;
            recordings.insert(name.to_owned(), Recording { shape: tensor.shape, param, grads: Vec::new() });
        } else if let Some((k, name)) = key.strip_prefix("grad.").and_then(|rest| rest.split_once('.')) {
            let k = k.parse().ok().with_context(|| format!("tensor `{key}`: `{k}` is not a step number"))?;
            let of_name = grads.entry(name.to_owned()).or_default();
            let values = tensor.values(&key)?;
            let previous = of_name.insert(k, (tensor.shape, values));
            ensure!(previous.is_none(), "tensor `{key}`: step {k} is there twice");
        }
    }
    ensure!(!recordings.is_empty(), "there is no tensor `param.<name>`");
    for (name, steps) in grads {
        let Some(recording) = recordings.get_mut(&name) else {
            bail!("gradients of `{name}` have no parameter `param.{name}`");
        };
        for (expected, (k, (shape, grad))) in steps.into_iter().enumerate() {
            ensure!(k == expected, "gradients of `{name}`: step {expected} is missing before step {k}");
            ensure!(
                shape == recording.shape,
                "tensor `grad.{k}.{name}` has shape {shape:?}, but its parameter has {:?}",
                recording.shape
            );
            recording.grads.push(grad);
        }
    }
    let mut steps: Option<(&str, usize)> = None;
    for (name, recording) in &recordings {
        ensure!(!recording.grads.is_empty(), "parameter `{name}` has no gradients `grad.0.{name}`, …");
        let (first, count) = *steps.get_or_insert((name, recording.grads.len()));
        ensure!(
            recording.grads.len() == count,
            "`{name}` has gradients of {} steps, but `{first}` of {count}",
            recording.grads.len()
        );
    }
    Ok(recordings)
}

/// A tensor of a file, of any dtype.
struct Tensor<'a> {
    dtype: String,
    shape: Vec<usize>,
    data: &'a [u8],
}

impl Tensor<'_> {
    fn values(&self, key: &str) -> Result<Vec<f32>> {
        ensure!(self.dtype == "F32", "tensor `{key}` has dtype {}, but must be F32", self.dtype);
        ensure!(!self.data.is_empty(), "tensor `{key}` of shape {:?} holds nothing", self.shape);
        Ok(bytemuck::pod_collect_to_vec(self.data))
    }
}

/// The tensors of a safetensors file by name. Their data lie end to end and fill the file.
///
/// The crate `safetensors` keeps the last of several tensors of one name, and refuses a file for any dtype that it does not
/// know.
fn tensors(bytes: &[u8]) -> Result<Vec<(String, Tensor<'_>)>> {
    let (length, rest) = bytes.split_first_chunk().context("it has fewer than 8 bytes")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&length| length <= rest.len());
    let length = length.with_context(|| format!("its header does not fit into its {} bytes", bytes.len()))?;
    let (header, data) = rest.split_at(length);
    let Header(mut entries) = serde_json::from_slice(header).context("its header")?;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end = 0;
    let mut tensors = Vec::new();
    for (name, Entry { dtype, shape, data_offsets: (from, to) }) in entries {
        ensure!(
            from == end && from <= to && to <= data.len(),
            "tensor `{name}`: its data are bytes {from} to {to}, but must start at {end} and end within the {} bytes of data",
            data.len()
        );
        if let Ok(known) = serde_json::from_value::<Dtype>(Value::from(dtype.as_str())) {
            let bits = shape.iter().try_fold(known.bitsize(), |bits, &size| bits.checked_mul(size));
            ensure!(
                bits.is_some_and(|bits| bits.is_multiple_of(8) && bits / 8 == to - from),
                "tensor `{name}`: {} bytes do not match {dtype} of shape {shape:?}",
                to - from
            );
        }
        end = to;
        tensors.push((name, Tensor { dtype, shape, data: &data[from..to] }));
    }
    ensure!(end == data.len(), "its tensors have {end} bytes of data, and the file has {}", data.len());
    Ok(tensors)
}

/// A tensor in a header.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The tensors of a header, each name once.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                // `None` is the metadata's, which say nothing about tensors.
                let mut entries: BTreeMap<String, Option<Entry>> = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let about = |e: A::Error| A::Error::custom(format!("tensor `{name}`: {e}"));
                    let entry = match name.as_str() {
                        "__metadata__" => map.next_value::<Option<BTreeMap<String, String>>>().map(|_| None),
                        _ => map.next_value().map(Some),
                    };
                    let entry = entry.map_err(about)?;
                    if entries.contains_key(&name) {
                        return Err(A::Error::custom(format!("tensor `{name}` is there twice")));
                    }
                    entries.insert(name, entry);
                }
                let tensors = entries.into_iter().filter_map(|(name, entry)| Some((name, entry?)));
                Ok(Header(tensors.collect()))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
