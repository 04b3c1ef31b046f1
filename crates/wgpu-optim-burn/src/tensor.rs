//! Burn's tensors as ranges of wgpu buffers, and back.
//!
//! Burn queues operations. Resolving a tensor runs what it waits for, and asking for its buffer submits that to the
//! shared queue: commands submitted afterwards read finished values, and what Burn submits later sees ours. Small
//! tensors share buffers, and the allocator may move them between steps, so a range is asked for in every step and held
//! until the submit.

use std::any::Any;

use burn::backend::wgpu::{AutoCompiler, CubeBackend, CubeTensor, WgpuResource};
use burn::backend::{BackendTypes, DType, TensorMetadata};
use burn::cubecl::wgpu::WgpuServer;
use burn::tensor::{Device, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{Cube, CubeDevice};
use burn_fusion::client::GlobalFusionClient;
use burn_fusion::stream::StreamId;
use burn_fusion::{FusionBackend, FusionRuntime, FusionTensor, NoOp};
use burn_ir::{InitOperationIr, OperationIr};
use wgpu_optim::{TensorSlice, wgpu};

/// What Burn's `Cube` backend calls a float tensor. Any crate of a program can switch fusion on, and the alias changes
/// with it: both primitives are served. `B` is the backend below fusion.
trait Primitive<B>: Sized {
    fn resolve(self) -> CubeTensor;
    fn wrap(tensor: CubeTensor) -> Self;
}

impl<B> Primitive<B> for CubeTensor {
    fn resolve(self) -> CubeTensor {
        self
    }

    fn wrap(tensor: CubeTensor) -> Self {
        tensor
    }
}

impl<R, B> Primitive<B> for FusionTensor<R>
where
    R: FusionRuntime<FusionDevice = CubeDevice> + 'static,
    R::FusionHandle: From<CubeTensor>,
    B: FusionBackend<FusionRuntime = R> + BackendTypes<FloatTensorPrimitive = CubeTensor> + 'static,
{
    fn resolve(self) -> CubeTensor {
        let client = self.client.clone();
        client.resolve_tensor_float::<B>(self)
    }

    fn wrap(tensor: CubeTensor) -> Self {
        let client = GlobalFusionClient::<R>::load(&tensor.device);
        let (shape, dtype) = (tensor.shape(), tensor.dtype());
        let init = InitOperationIr::create(shape, dtype, || client.register_tensor_handle(tensor.into()));
        let operation = OperationIr::Init(init);
        let mut outputs = client.register(StreamId::current(), operation, NoOp::<B>::new());
        outputs.pop().expect("one output is registered")
    }
}

/// Refuses a tensor that cannot be stepped on this device, and says what to do.
pub(crate) fn check<const D: usize>(tensor: &Tensor<D>, on: &Device, dtype: DType) -> Result<(), String> {
    if tensor.dtype() != dtype {
        return Err(format!(
            "it is {:?}, but the optimizer steps {dtype:?}; cast the model, choose another precision, or leave this \
             parameter to another optimizer",
            tensor.dtype()
        ));
    }
    let device = tensor.device().inner();
    if device != *on {
        return Err(format!(
            "it lives on {device:?}, but the optimizer was made for {on:?}; move the model there with \
             `model.to_device(&gpu.device)`, or make another optimizer"
        ));
    }
    Ok(())
}

/// The storage of a tensor that [`check`] lets pass and that carries no autodiff, with all its pending operations
/// launched.
pub(crate) fn storage<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    let primitive = tensor.try_into_primitive::<Cube>().expect("its device is one of Burn's cube backend");
    Primitive::<CubeBackend>::resolve(primitive)
}

/// [`check`], then [`storage`].
pub(crate) fn resolve<const D: usize>(tensor: Tensor<D>, on: &Device, dtype: DType) -> Result<CubeTensor, String> {
    check(&tensor, on, dtype)?;
    Ok(storage(tensor))
}

/// Whether two tensors are the same range of memory, seen in the same way.
pub(crate) fn same_storage(a: &CubeTensor, b: &CubeTensor) -> bool {
    if (a.dtype, &a.meta) != (b.dtype, &b.meta) {
        return false;
    }
    let (Ok(a), Ok(b)) = (Range::of(a), Range::of(b)) else { return false };
    a.buffer == b.buffer && a.offset == b.offset
}

/// A Burn tensor on this storage.
pub(crate) fn wrap<const D: usize>(tensor: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(Primitive::<CubeBackend>::wrap(tensor))
}

/// The values of a tensor in row-major order: itself, or a copy if it is strided or a view.
pub(crate) fn dense(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// The tensor itself where nothing else holds its storage; otherwise a copy.
pub(crate) fn exclusive(tensor: CubeTensor) -> CubeTensor {
    let tensor = dense(tensor);
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// The range of a buffer in which a tensor lies, held in place.
pub(crate) struct Range {
    pub buffer: wgpu::Buffer,
    pub offset: u64,
    /// The tensor's bytes, rounded up to whole vectors of four.
    pub size: u64,
    /// Cubecl's hold on the range, whose type has no public name.
    _held: Box<dyn Any + Send>,
}

impl Range {
    /// Submits what is pending for `tensor` and finds its place. A tensor that is written is [`exclusive`].
    pub(crate) fn of(tensor: &CubeTensor) -> Result<Self, String> {
        let managed = tensor
            .client
            .get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone())
            .map_err(|e| format!("its storage cannot be reached: {e}"))?;
        let WgpuResource { buffer, offset, .. } = managed.resource().clone();
        // Allocations begin and end at multiples of the device's alignment, in wgpu at least 32 bytes: what lies between the end of a
        // tensor and the next vector is in its own allocation, which has no other owner if the tensor is exclusive.
        let unit = tensor.dtype().size() as u64;
        let size = unit * (tensor.shape().num_elements() as u64).next_multiple_of(4);
        Ok(Self { buffer, offset, size, _held: Box::new(managed) })
    }

    /// The ranges of many tensors in one visit to Burn's device thread.
    pub(crate) fn all(tensors: &[&CubeTensor]) -> Result<Vec<Self>, (usize, String)> {
        let Some(first) = tensors.first() else { return Ok(Vec::new()) };
        let find = || {
            let ranges = tensors.iter().enumerate();
            ranges.map(|(i, tensor)| Self::of(tensor).map_err(|reason| (i, reason))).collect()
        };
        first.client.exclusive(find).unwrap_or_else(|e| Err((0, format!("its storage cannot be reached: {e}"))))
    }

    pub(crate) fn slice(&self) -> TensorSlice<'_> {
        TensorSlice { buffer: &self.buffer, offset: self.offset, size: self.size }
    }
}
