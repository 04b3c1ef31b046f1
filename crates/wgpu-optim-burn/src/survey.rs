//! [`Survey`]: the parameters of a module, with their paths.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::error::Error;

/// What a [`Survey`] does with each parameter.
pub(crate) trait Visit {
    /// Sees a parameter. `path` has the names of the modules around it, and its own.
    ///
    /// # Errors
    /// If the survey must end here.
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &[String]) -> Result<(), Error>;
}

/// Visits the float parameters of a module in order, up to the first error. It leaves out parameters of size 0.
pub(crate) struct Survey<V> {
    visitor: V,
    path: Vec<String>,
    result: Result<(), Error>,
}

impl<V: Visit> Survey<V> {
    /// Surveys a module, and returns the visitor with what it found.
    pub(crate) fn of<M: Module>(module: &M, visitor: V) -> Result<V, Error> {
        let mut survey = Self { visitor, path: Vec::new(), result: Ok(()) };
        module.visit(&mut survey);
        survey.result.map(|()| survey.visitor)
    }
}

impl<V: Visit> ModuleVisitor for Survey<V> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_ok() && param.lazy_shape().num_elements() > 0 {
            self.result = self.visitor.visit(param, &self.path);
        }
    }
}
