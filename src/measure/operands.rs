//! What an operation reads and writes, and the numbers it is tried on.

use super::cases::Kind;
use crate::network::op::{Conv, Linear, Pool, Shape};
use crate::precision::Precision;
use crate::random::{Key, Purpose};
use rayon::prelude::*;

/// What an operand holds before the operation runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// NaN: the operation must write every element and read none.
    Poison,
    /// Uniform in −scale..scale.
    Uniform(f32),
    /// 0 or 1.
    Bits,
    /// Numbers that differ by more than rounding within every pooling window of so many pixels a
    /// side, so that every device finds the same maxima.
    Distinct(Shape, usize),
    /// What the forward operation makes of the first operand on the same device.
    Forward,
}

/// One buffer of an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operand {
    pub name: &'static str,
    pub elements: usize,
    /// Rows and columns of a weight matrix.
    pub matrix: Option<[usize; 2]>,
    pub fill: Fill,
    pub store: Store,
}

/// What memory an operand is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// In the type that the precision has for maps.
    Maps,
    /// f32, with a copy for products where the precision has one.
    Weights,
    F32,
}

impl Store {
    /// By the operand's name in the methods of the device.
    fn of(name: &str) -> Self {
        match name {
            "weights" | "other weights" | "matrix" => Store::Weights,
            "bias" | "gradient" | "momentum" | "mean" | "mask" | "probabilities" | "logits" => {
                Store::F32
            }
            _ => Store::Maps,
        }
    }
}

/// The buffers of an operation, in the order of the method's arguments.
#[derive(Clone, Debug, Default)]
pub struct Operands {
    pub reads: Vec<Operand>,
    pub writes: Vec<Operand>,
    /// Bytes of the input beside them: crops.
    pub input_bytes: usize,
}

impl Operands {
    /// Bytes that go from and to memory where each operand is read and written once.
    pub fn bytes(&self, precision: Precision) -> usize {
        let map = precision.map_bytes();
        // Weights that are read are operands of products; those that are written have a copy written too.
        let copy = if map < 4 { map } else { 0 };
        let read = |o: &Operand| match o.store {
            Store::Maps | Store::Weights => map * o.elements,
            Store::F32 => 4 * o.elements,
        };
        let written = |o: &Operand| {
            let times = 1 + usize::from(o.fill != Fill::Poison);
            match o.store {
                Store::Maps => times * map * o.elements,
                Store::Weights => (times * 4 + copy) * o.elements,
                Store::F32 => times * 4 * o.elements,
            }
        };
        let reads = self.reads.iter().map(read).sum::<usize>();
        reads + self.writes.iter().map(written).sum::<usize>() + self.input_bytes
    }

    fn read(mut self, name: &'static str, elements: usize) -> Self {
        self.reads.push(plain(name, elements, Fill::Uniform(1.0)));
        self
    }

    fn read_as(mut self, name: &'static str, elements: usize, fill: Fill) -> Self {
        self.reads.push(plain(name, elements, fill));
        self
    }

    /// Weights: such that sums of `rows` products stay about 1.
    fn read_matrix(mut self, name: &'static str, matrix: [usize; 2]) -> Self {
        let scale = 1.0 / (matrix[0] as f32).sqrt();
        self.reads.push(Operand {
            matrix: Some(matrix),
            ..plain(name, matrix[0] * matrix[1], Fill::Uniform(scale))
        });
        self
    }

    fn write(mut self, name: &'static str, elements: usize) -> Self {
        self.writes.push(plain(name, elements, Fill::Poison));
        self
    }

    /// Written in place.
    fn update(mut self, name: &'static str, elements: usize) -> Self {
        self.writes.push(plain(name, elements, Fill::Uniform(1.0)));
        self
    }

    fn write_matrix(mut self, name: &'static str, matrix: [usize; 2], fill: Fill) -> Self {
        self.writes.push(Operand {
            matrix: Some(matrix),
            ..plain(name, matrix[0] * matrix[1], fill)
        });
        self
    }
}

fn plain(name: &'static str, elements: usize, fill: Fill) -> Operand {
    Operand {
        name,
        elements,
        matrix: None,
        fill,
        store: Store::of(name),
    }
}

const PARTS: [(&str, &str); 2] = [("x", "weights"), ("other x", "other weights")];

/// The operands of an operation on `n` images.
pub(super) fn operands(kind: &Kind, n: usize) -> Operands {
    let new = Operands::default();
    match *kind {
        Kind::ConvForward(_) | Kind::ConvData { .. } | Kind::ConvWeights { .. } => conv(kind, n),
        Kind::LinearForward { .. }
        | Kind::LinearData(_)
        | Kind::LinearWeights { .. }
        | Kind::LinearUpdate(_) => linear(kind, n),
        Kind::Bias {
            pixels,
            outputs,
            accumulate,
        } => {
            let read = new.read("dy", n * pixels * outputs);
            sum_into(read, "gradient", outputs, accumulate)
        }
        Kind::ActivationForward(_, len) => new.update("y", n * len),
        Kind::ActivationBackward(_, len) => new.read("y", n * len).update("dy", n * len),
        Kind::DropoutForward { op, given } => {
            masked(new, n * op.units, given).update("y", n * op.units)
        }
        Kind::DropoutBackward { op, given, before } => {
            let mut all = masked(new, n * op.units, given);
            if before.is_some() {
                all = all.read("y", n * op.units);
            }
            all.update("dy", n * op.units)
        }
        Kind::Scale(len) => new.update("y", n * len),
        Kind::Copy(len) => new.read("from", n * len).write("into", n * len),
        Kind::Add(len) => new.read("from", n * len).update("into", n * len),
        Kind::SoftmaxForward(classes) => new
            .read_as("logits", n * classes, Fill::Uniform(8.0))
            .write("probabilities", n * classes),
        Kind::Score(classes) => new.read_as("logits", n * classes, Fill::Uniform(8.0)),
        Kind::SoftmaxBackward(classes) => new
            .read("probabilities", n * classes)
            .write("dlogits", n * classes),
        Kind::Sgd(len) => new
            .read("gradient", len)
            .update("weights", len)
            .update("momentum", len),
        Kind::Augment { crop, side } => Operands {
            input_bytes: n * crop * crop * 3,
            ..new
                .read_as("mean", side * side * 3, Fill::Uniform(100.0))
                .write("x", n * crop * crop * 3)
        },
        Kind::Matrix { rows, columns } => {
            new.write_matrix("matrix", [rows, columns], Fill::Uniform(1.0))
        }
        _ => maps(kind, n),
    }
}

/// Normalisation and pooling.
fn maps(kind: &Kind, n: usize) -> Operands {
    let new = Operands::default();
    match *kind {
        Kind::LrnForward(op) => {
            parts(new, op.parts, n * op.shape.len()).write("y", n * op.shape.len())
        }
        Kind::LrnBackward(op) => {
            let len = n * op.shape.len();
            let mut all = parts(new, op.parts, len).read("dy", len).write("dx", len);
            if op.parts > 1 {
                all = all.write("other dx", len);
            }
            all
        }
        Kind::LocalNormForward(op) => new
            .read("x", n * op.shape.len())
            .write("y", n * op.shape.len()),
        Kind::LocalNormBackward(op) => {
            let len = n * op.shape.len();
            new.read("x", len).read("dy", len).write("dx", len)
        }
        Kind::PoolForward(op) | Kind::LrnPoolForward(_, op) => {
            pooled(new, n, &op).write("y", n * op.output.len())
        }
        Kind::PoolBackward(op) | Kind::LrnPoolBackward(_, op) => pooled(new, n, &op)
            .read_as("y", n * op.output.len(), Fill::Forward)
            .read("dy", n * op.output.len())
            .write("dx", n * op.input.len()),
        _ => unreachable!("not an operation over maps"),
    }
}

fn pooled(all: Operands, n: usize, op: &Pool) -> Operands {
    all.read_as(
        "x",
        n * op.input.len(),
        Fill::Distinct(op.input, op.window.size),
    )
}

fn parts(mut all: Operands, parts: usize, elements: usize) -> Operands {
    for (x, _) in &PARTS[..parts] {
        all = all.read(x, elements);
    }
    all
}

fn masked(all: Operands, elements: usize, given: bool) -> Operands {
    if given {
        all.read_as("mask", elements, Fill::Bits)
    } else {
        all
    }
}

fn sum_into(all: Operands, name: &'static str, elements: usize, accumulate: bool) -> Operands {
    if accumulate {
        all.update(name, elements)
    } else {
        all.write(name, elements)
    }
}

fn gradient(accumulate: bool) -> Fill {
    if accumulate {
        Fill::Uniform(1.0)
    } else {
        Fill::Poison
    }
}

fn conv(kind: &Kind, n: usize) -> Operands {
    let new = Operands::default();
    let matrix = |op: &Conv| [op.depth(), op.output.maps];
    match kind {
        Kind::ConvForward(op) => {
            let mut all = parts(new, op.parts, n * op.input.len());
            for (_, weights) in &PARTS[..op.parts] {
                all = all.read_matrix(weights, matrix(op));
            }
            all.read("bias", op.output.maps)
                .write("y", n * op.output.len())
        }
        Kind::ConvData { op, before } => {
            let mut all = new
                .read("dy", n * op.output.len())
                .read_matrix("weights", matrix(op));
            if before.is_some() {
                all = all.read("y", n * op.input.len());
            }
            all.write("dx", n * op.input.len())
        }
        Kind::ConvWeights {
            op,
            bias,
            accumulate,
        } => {
            let all = new
                .read("x", n * op.input.len())
                .read("dy", n * op.output.len())
                .write_matrix("gradient", matrix(op), gradient(*accumulate));
            match bias {
                true => sum_into(all, "bias", op.output.maps, *accumulate),
                false => all,
            }
        }
        _ => unreachable!("not a convolution"),
    }
}

fn linear(kind: &Kind, n: usize) -> Operands {
    let new = Operands::default();
    let matrix = |op: &Linear| [op.depth(), op.outputs];
    match kind {
        Kind::LinearForward { op, .. } => {
            let mut all = parts(new, op.parts, n * op.depth());
            for (_, weights) in &PARTS[..op.parts] {
                all = all.read_matrix(weights, matrix(op));
            }
            all.read("bias", op.outputs).write("y", n * op.outputs)
        }
        Kind::LinearData(op) => new
            .read("dy", n * op.outputs)
            .read_matrix("weights", matrix(op))
            .write("dx", n * op.depth()),
        Kind::LinearWeights { op, accumulate } => new
            .read("x", n * op.depth())
            .read("dy", n * op.outputs)
            .write_matrix("gradient", matrix(op), gradient(*accumulate)),
        Kind::LinearUpdate(op) => new
            .read("x", n * op.depth())
            .read("dy", n * op.outputs)
            .write_matrix("weights", matrix(op), Fill::Uniform(1.0))
            .write_matrix("momentum", matrix(op), Fill::Uniform(1.0)),
        _ => unreachable!("not a fully connected layer"),
    }
}

/// The numbers of an operand, the same for the same `stream`; none where another operation makes
/// them.
pub fn numbers(operand: &Operand, stream: u32) -> Vec<f32> {
    const CHUNK: usize = 1 << 14;
    let key = Key::new(2012, Purpose::Verify);
    let mut values = vec![0.0f32; operand.elements];
    let draw = |each: &(dyn Fn(&mut crate::random::Stream, usize) -> f32 + Sync),
                values: &mut [f32]| {
        values
            .par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(c, chunk)| {
                let mut stream = key.stream(stream, c as u64);
                for (i, value) in chunk.iter_mut().enumerate() {
                    *value = each(&mut stream, c * CHUNK + i);
                }
            });
    };
    match operand.fill {
        Fill::Poison => values.fill(f32::NAN),
        Fill::Uniform(scale) => draw(&|s, _| s.between(-scale, scale), &mut values),
        Fill::Bits => draw(&|s, _| (s.word() & 1) as f32, &mut values),
        Fill::Distinct(shape, size) => draw(
            &|s, i| {
                let pixel = i % shape.len() / shape.maps;
                let (row, column) = (pixel / shape.width % size, pixel % shape.width % size);
                // Two pixels of a window differ in this residue of size², so in the level.
                let level = s.below(14) as usize * size * size + row * size + column;
                level as f32 / (7 * size * size) as f32 - 1.0
            },
            &mut values,
        ),
        Fill::Forward => {}
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_window_are_distinct() {
        let shape = Shape::new(2, 7, 8);
        let operand = plain("x", 2 * shape.len(), Fill::Distinct(shape, 3));
        let x = numbers(&operand, 1);
        for image in x.chunks(shape.len()) {
            for (row, column, map) in (0..5 * 6 * 2).map(|i| (i / 12, i / 2 % 6, i % 2)) {
                let at = |i: usize| image[((row + i / 3) * 8 + column + i % 3) * 2 + map];
                let mut window: Vec<f32> = (0..9).map(at).collect();
                window.sort_by(f32::total_cmp);
                assert!(window.windows(2).all(|w| w[1] - w[0] > 0.01));
            }
        }
    }
}
