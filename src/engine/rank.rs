//! One device and the columns on it: their memory and their input.

use super::links::Post;
use super::update::Scaling;
use crate::batch::Batch;
use crate::device::{Device, Score};
use crate::error::{Result, device, numeric};
use crate::network::params::Param;
use crate::network::plan::{ParamId, Plan, SlotId, Stage, Step};
use crate::random::Key;
use std::ops::Range;

/// One column's share of a layer's parameters on its device.
pub(super) struct Share<B> {
    /// One matrix per part.
    pub weights: Vec<B>,
    pub momentum: Vec<B>,
    /// Absent where the update is fused with the weight gradient.
    pub gradients: Option<Vec<B>>,
    pub bias: B,
    pub bias_momentum: B,
    pub bias_gradient: B,
    /// Elements of one part's matrix, and of the bias.
    pub weight_elements: usize,
    pub bias_elements: usize,
}

/// One column's memory. Indices are the plan's.
pub(super) struct Column<B> {
    pub index: usize,
    /// Maps; taken out while they are written.
    pub slots: Vec<Option<B>>,
    /// The other column's maps of exchanged slots, where it is on another device.
    pub inboxes: Vec<Option<B>>,
    /// Gradients of the other column's maps that this column computed.
    pub outboxes: Vec<Option<B>>,
    /// Gradients of this column's maps that the other column computed.
    pub returns: Vec<Option<B>>,
    /// Two buffers that alternate along the backward pass.
    pub gradients: [Option<B>; 2],
    pub shares: Vec<Option<Share<B>>>,
    /// Given dropout masks, by lane.
    pub masks: Vec<B>,
}

/// A device with one or all of the columns.
pub(super) struct Rank<D: Device> {
    pub device: D,
    pub columns: Vec<Column<D::Buffer>>,
    pub dropout_key: Key,
    /// The loss scale, where the precision needs one.
    pub scaling: Option<Scaling<D::Buffer>>,
    /// Values that change from step to step, where steps are captured as graphs: the device reads
    /// them from its memory when it runs.
    pub later: Option<D::Buffer>,
    /// Bytes sent to other devices, not yet counted by the engine.
    pub sent: u64,
    pub post: Post,
    /// Sums of tensors, to find numbers that are not finite; allocated when first used.
    pub sums: Option<D::Buffer>,
    /// Two, so that a batch can arrive while the one before is used.
    inputs: [D::Input; 2],
    current: usize,
    side: usize,
    mean: D::Buffer,
    probabilities: Option<D::Buffer>,
    tally: D::Tally,
    /// What the tally's loss was when it was looked at last.
    seen: f64,
}

impl<D: Device> Rank<D> {
    pub(super) fn new(
        mut device: D,
        post: Post,
        plan: &Plan,
        columns: Range<usize>,
        side: usize,
        dropout_key: Key,
        keep_gradients: bool,
    ) -> Result<Self> {
        let alone = columns.len() == plan.columns;
        let first = columns.start;
        let columns = columns
            .map(|c| Column::new(&mut device, plan, c, first, alone, keep_gradients))
            .collect::<Result<Vec<_>>>()?;
        let inputs = [
            device.allocate_input(plan.batch, plan.image)?,
            device.allocate_input(plan.batch, plan.image)?,
        ];
        let mean = device.allocate(side * side * 3)?;
        let probabilities = if first == 0 {
            Some(device.allocate(plan.batch * plan.classes)?)
        } else {
            None
        };
        let tally = device.allocate_tally()?;
        let scaling = if plan.precision.scales_loss() {
            Some(Scaling::new(&mut device)?)
        } else {
            None
        };
        Ok(Rank {
            device,
            columns,
            dropout_key,
            scaling,
            later: None,
            sent: 0,
            post,
            sums: None,
            inputs,
            current: 0,
            side,
            mean,
            probabilities,
            tally,
            seen: 0.0,
        })
    }

    /// Which of the two inputs is in use.
    pub(super) fn current_input(&self) -> usize {
        self.current
    }

    /// The device and the input in use.
    pub(super) fn with_input(&mut self) -> (&mut D, &D::Input) {
        (&mut self.device, &self.inputs[self.current])
    }

    pub(super) fn set_mean(&mut self, mean: &[f32]) -> Result<()> {
        self.device.upload(mean, &mut self.mean)
    }

    /// Starts the upload of a batch into the input not in use; the batch before has arrived when
    /// this returns.
    pub(super) fn upload(&mut self, batch: &Batch) -> Result<()> {
        let previous = self.current;
        self.current = 1 - self.current;
        self.device
            .upload_input(batch, &mut self.inputs[self.current])?;
        self.device.input_arrived(&self.inputs[previous])
    }

    /// Waits until the newest batch has been read from the host's memory.
    pub(super) fn arrived(&mut self) -> Result<()> {
        self.device.input_arrived(&self.inputs[self.current])
    }

    /// Makes the network's input from the uploaded batch. Columns on one device share it.
    pub(super) fn augment(&mut self, plan: &Plan, images: usize) -> Result<()> {
        let x = self.columns[0].slots[plan.input]
            .as_mut()
            .expect("the first column holds the input");
        self.device
            .augment(images, &self.inputs[self.current], self.side, &self.mean, x)
    }

    pub(super) fn load_images(
        &mut self,
        plan: &Plan,
        images: &[f32],
        labels: &[u32],
    ) -> Result<()> {
        let shape = plan.slots[plan.input].shape;
        let nhwc = super::tensors::to_nhwc(images, shape, labels.len());
        let x = self.columns[0].slots[plan.input]
            .as_mut()
            .expect("the first column holds the input");
        self.device.upload(&nhwc, x)?;
        self.device
            .upload_labels(labels, &mut self.inputs[self.current])
    }

    /// Softmax and score of the logits, where column 0 is here.
    pub(super) fn loss(&mut self, plan: &Plan, images: usize) -> Result<()> {
        let Some(probabilities) = self.probabilities.as_mut() else {
            return Ok(());
        };
        let logits = self.columns[0].slots[plan.logits]
            .as_ref()
            .expect("column 0 holds the logits");
        self.device
            .softmax_forward(plan.classes, images, logits, probabilities)?;
        self.device.score(
            plan.classes,
            images,
            logits,
            &self.inputs[self.current],
            &mut self.tally,
        )
    }

    /// Gradient of the mean loss over `whole_batch` images by the logits.
    pub(super) fn loss_gradient(
        &mut self,
        plan: &Plan,
        images: usize,
        whole_batch: usize,
    ) -> Result<()> {
        let Some(probabilities) = self.probabilities.as_ref() else {
            return Ok(());
        };
        let column = &mut self.columns[0];
        let target = column.gradients[plan.slots[plan.logits].gradient]
            .as_mut()
            .expect("not in use");
        let scale = (
            1.0 / whole_batch as f32,
            self.scaling.as_ref().map(|scaling| &scaling.state),
        );
        self.device.softmax_backward(
            plan.classes,
            images,
            probabilities,
            &self.inputs[self.current],
            scale,
            target,
        )
    }

    pub(super) fn take_score(&mut self) -> Result<Score> {
        self.seen = 0.0;
        self.device.take_tally(&mut self.tally)
    }

    /// Fails where this batch's loss, a mean over its images, is not finite, and can be read
    /// without waiting: then nothing has been updated with its gradient yet.
    pub(super) fn check_loss(&mut self, images: usize) -> Result<()> {
        let Some(score) = self.device.peek_tally(&self.tally) else {
            return Ok(());
        };
        let loss = (score.loss - self.seen) / images as f64;
        self.seen = score.loss;
        if loss.is_finite() {
            return Ok(());
        }
        Err(numeric(format!("loss {loss:.4}")))
    }

    pub(super) fn probabilities(&mut self, elements: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0; elements];
        let source = self
            .probabilities
            .as_ref()
            .ok_or_else(|| device("column 0 is on another device"))?;
        self.device.download(source, &mut values)?;
        Ok(values)
    }

    /// Takes slot `y` out of a column, lets `work` write it with the device and all columns at
    /// hand, and puts it back.
    pub(super) fn write_slot(
        &mut self,
        local: usize,
        y: SlotId,
        work: impl FnOnce(&mut D, &[Column<D::Buffer>], &mut D::Buffer) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = self.columns[local].slots[y]
            .take()
            .expect("a slot is written once at a time");
        let result = work(&mut self.device, &self.columns, &mut buffer);
        self.columns[local].slots[y] = Some(buffer);
        result
    }
}

/// The buffers a step reads of a slot, its own column's first.
pub(super) struct Parts<'a, B> {
    buffers: [&'a B; 2],
    count: usize,
}

impl<'a, B> Parts<'a, B> {
    /// What column `columns[local]` reads of slot `x` in `parts` parts.
    pub(super) fn of(
        columns: &'a [Column<B>],
        plan: &Plan,
        local: usize,
        x: SlotId,
        parts: usize,
    ) -> Self {
        let column = &columns[local];
        // Columns on one device share the images.
        let owner = if x == plan.input { &columns[0] } else { column };
        let own = owner.slots[x].as_ref().expect("a column holds its maps");
        let mut buffers = [own; 2];
        if parts > 1 {
            let other = columns.iter().find(|c| c.index != column.index);
            let maps = other.map_or(&column.inboxes[x], |c| &c.slots[x]);
            buffers[1] = maps
                .as_ref()
                .expect("the other column's maps are here or in the inbox");
        }
        Parts {
            buffers,
            count: parts,
        }
    }

    pub(super) fn slice(&self) -> &[&'a B] {
        &self.buffers[..self.count]
    }
}

/// References to one buffer per part, in an array so that a step allocates nothing.
pub(super) fn slice_of<B>(buffers: &[B]) -> [&B; 2] {
    [&buffers[0], buffers.last().expect("at least one part")]
}

impl<B> Column<B> {
    /// This column's share of a parameter; it must hold one.
    pub(super) fn share(&self, param: ParamId) -> &Share<B> {
        self.shares[param]
            .as_ref()
            .expect("a column holds its share")
    }

    fn new<D: Device<Buffer = B>>(
        device: &mut D,
        plan: &Plan,
        index: usize,
        first: usize,
        alone: bool,
        keep_gradients: bool,
    ) -> Result<Self> {
        let mut allocate_slots = |held: &dyn Fn(SlotId) -> bool| -> Result<Vec<Option<B>>> {
            plan.slots
                .iter()
                .enumerate()
                .map(|(id, slot)| {
                    let elements = slot.shape.len() * plan.batch;
                    match held(id) {
                        false => Ok(None),
                        // The loss is told from f32.
                        true if id == plan.logits => device.allocate(elements).map(Some),
                        true => device.allocate_maps(elements).map(Some),
                    }
                })
                .collect()
        };
        let slots = allocate_slots(&|id| {
            index < plan.slots[id].columns && (id != plan.input || index == first)
        })?;
        let inboxes = allocate_slots(&|id| !alone && reads(plan, index, id))?;
        let outboxes = allocate_slots(&|id| reads(plan, index, id))?;
        let returns = allocate_slots(&|id| !alone && returns(plan, index, id))?;
        let [even, odd] = plan.gradient_buffers(index);
        let gradients = [even, odd].map(|elements| device.allocate_maps(elements));
        let [even, odd] = gradients;
        let gradients = [Some(even?), Some(odd?)];
        let shares = plan
            .params
            .iter()
            .map(|p| Share::new(device, p, index, keep_gradients))
            .collect::<Result<_>>()?;
        let masks = (0..dropouts(plan))
            .map(|_| device.allocate(0))
            .collect::<Result<_>>()?;
        Ok(Column {
            index,
            slots,
            inboxes,
            outboxes,
            returns,
            gradients,
            shares,
            masks,
        })
    }
}

/// Whether a column reads the other's maps of a slot: it is among the readers of its exchange.
pub(super) fn reads(plan: &Plan, column: usize, id: SlotId) -> bool {
    exchanges(plan, id).any(|readers| column < readers)
}

/// Whether a column's maps of a slot are read by the other, which returns their gradients.
pub(super) fn returns(plan: &Plan, column: usize, id: SlotId) -> bool {
    exchanges(plan, id).any(|readers| (0..readers).any(|r| r != column))
}

/// Of every exchange of a slot, how many columns read it.
fn exchanges(plan: &Plan, id: SlotId) -> impl Iterator<Item = usize> {
    plan.stages.iter().filter_map(move |s| match *s {
        Stage::Exchange { slot, readers } if slot == id => Some(readers),
        _ => None,
    })
}

/// Dropout layers of a plan.
pub(super) fn dropouts(plan: &Plan) -> usize {
    let of_column_0 = plan.stages.iter().filter_map(|s| match s {
        Stage::Compute { steps, .. } => steps.first(),
        Stage::Exchange { .. } => None,
    });
    of_column_0
        .filter(|s| matches!(s, Step::Dropout { .. }))
        .count()
}

impl<B> Share<B> {
    fn new<D: Device<Buffer = B>>(
        device: &mut D,
        param: &Param,
        column: usize,
        keep_gradients: bool,
    ) -> Result<Option<Self>> {
        if column >= param.columns {
            return Ok(None);
        }
        let matrix = param.depth() * param.outputs();
        let fused = param.kernel == 0 && device.fuses_linear_update() && !keep_gradients;
        let weights = (0..param.parts)
            .map(|_| device.allocate_weights(matrix))
            .collect::<Result<Vec<_>>>()?;
        let mut matrices = || {
            (0..param.parts)
                .map(|_| device.allocate(matrix))
                .collect::<Result<Vec<_>>>()
        };
        let momentum = matrices()?;
        let gradients = if fused { None } else { Some(matrices()?) };
        let mut bias = || device.allocate(param.outputs());
        Ok(Some(Share {
            weights,
            momentum,
            gradients,
            bias: bias()?,
            bias_momentum: bias()?,
            bias_gradient: bias()?,
            weight_elements: matrix,
            bias_elements: param.outputs(),
        }))
    }
}
