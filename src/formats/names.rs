//! Tensors of any naming to the names of this program.
//!
//! Names end in `.weight` or `.bias`; what is before that names a module. Modules with
//! four-dimensional weights are the convolutions, those with two-dimensional ones the fully
//! connected layers; both are taken in natural order of their names (`features.8` before
//! `features.10`). This covers the program's own names, torchvision's `features.0.weight` …
//! `classifier.6.bias`, and prefixes such as `module.` of wrapped models.

use crate::error::{Result, checkpoint};
use crate::network::params::{Param, Tensor, Tensors};
use std::collections::BTreeMap;

/// The tensors under the names of these parameters, in their order.
///
/// # Errors
/// `Checkpoint`, naming a tensor that is missing, extra or of another shape.
pub fn renamed(tensors: Tensors, params: &[Param]) -> Result<Tensors> {
    let modules = modules(tensors)?;
    let (convolutions, linears): (Vec<&Param>, _) = params.iter().partition(|p| p.kernel > 0);
    let mut found: BTreeMap<String, (Tensor, Tensor)> = BTreeMap::new();
    for (dimensions, params) in [(4, convolutions), (2, linears)] {
        let mut these: Vec<&Module> = modules
            .iter()
            .filter(|m| m.weight.shape.len() == dimensions)
            .collect();
        these.sort_by_key(|m| natural(&m.name));
        if these.len() != params.len() {
            let names: Vec<&str> = these.iter().map(|m| m.name.as_str()).collect();
            return Err(checkpoint(format!(
                "expected {} tensors *.weight of {dimensions} dimensions, found {} ({})",
                params.len(),
                these.len(),
                names.join(", ")
            )));
        }
        for (module, param) in these.into_iter().zip(params) {
            found.insert(param.name.clone(), module.fitted(param)?);
        }
    }
    let ordered = params.iter().filter_map(|p| found.remove(&p.name));
    Ok(Tensors(ordered.flat_map(|(w, b)| [w, b]).collect()))
}

struct Module {
    name: String,
    weight: Tensor,
    bias: Tensor,
}

impl Module {
    fn fitted(&self, param: &Param) -> Result<(Tensor, Tensor)> {
        let fit = |tensor: &Tensor, name: String, shape: Vec<usize>| {
            if tensor.shape != shape {
                let own = match tensor.name == name {
                    true => String::new(),
                    false => format!(" (as {name})"),
                };
                return Err(checkpoint(format!(
                    "tensor {}{own}: expected shape {shape:?}, found {:?}",
                    tensor.name, tensor.shape
                )));
            }
            Ok(Tensor {
                name,
                ..tensor.clone()
            })
        };
        Ok((
            fit(&self.weight, param.weight_name(), param.weight_shape())?,
            fit(&self.bias, param.bias_name(), vec![param.all_outputs()])?,
        ))
    }
}

/// Weights and biases by module.
fn modules(tensors: Tensors) -> Result<Vec<Module>> {
    let (mut weights, mut biases) = (BTreeMap::new(), BTreeMap::new());
    for tensor in tensors.0 {
        let dimensions = tensor.shape.len();
        match tensor.name.rsplit_once('.') {
            Some((module, "weight")) if dimensions == 4 || dimensions == 2 => {
                weights.insert(module.to_string(), tensor)
            }
            Some((module, "bias")) if dimensions == 1 => biases.insert(module.to_string(), tensor),
            _ => {
                return Err(checkpoint(format!(
                    "tensor {} (shape {:?}) is neither weight nor bias of a layer of this network",
                    tensor.name, tensor.shape
                )));
            }
        };
    }
    let modules = weights
        .into_iter()
        .map(|(name, weight)| {
            let bias = biases
                .remove(&name)
                .ok_or_else(|| checkpoint(format!("tensor {name}.bias is missing")))?;
            Ok(Module { name, weight, bias })
        })
        .collect::<Result<_>>()?;
    match biases.keys().next() {
        None => Ok(modules),
        Some(name) => Err(checkpoint(format!("tensor {name}.weight is missing"))),
    }
}

/// Parts of a name that sort as people count: words and numbers by turns.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(digits);
        let end = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        let (number, left) = after.split_at(end);
        parts.push((word.to_string(), number.parse().unwrap_or(0)));
        rest = left;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["features.10", "features.0", "features.8"];
        names.sort_by_key(|n| natural(n));
        assert_eq!(names, ["features.0", "features.8", "features.10"]);
    }
}
