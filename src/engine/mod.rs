//! Walks a plan over devices: forward, backward, update. Each device has a thread of its own
//! while a step runs; they meet only where the plan says exchange.

mod backward;
mod board;
mod finite;
mod footprint;
mod forward;
mod graphs;
mod links;
mod rank;
mod tensors;
mod update;
mod watchdog;
#[cfg(test)]
mod watchdog_tests;

use crate::batch::Batch;
use crate::device::loss_scale::LossScale;
use crate::device::{Device, Score};
use crate::error::{Error, Result, device, panic_text, usage};
use crate::fault::{self, Faults, Kind};
use crate::network::op::Sgd;
use crate::network::plan::{Plan, SlotId};
use crate::random::{Key, Purpose};
pub use board::Board;
use board::Doing;
pub use finite::Place;
pub use footprint::Needed;
use graphs::Graphs;
use links::{Links, Post};
use rank::Rank;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
pub use watchdog::{Late, Watchdog, Work};

/// Update constants of one parameter: its weights' and its bias's.
pub type Rates = (Sgd, Sgd);

/// Where dropout's masks come from in a training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dropping {
    /// From the counter-based streams of this update.
    Counter { step: u64 },
    /// From the masks given with [`Engine::set_masks`].
    Given,
    /// None: every output is multiplied by its test-time factor, as in evaluation.
    Off,
}

/// What a training step does besides computing gradients.
#[derive(Clone, Copy, Debug)]
pub struct StepContext<'a> {
    pub dropping: Dropping,
    /// The first image's number in the update's whole batch, and the images of that batch.
    pub first_image: usize,
    pub whole_batch: usize,
    /// Add the gradients to those of the step before.
    pub accumulate: bool,
    /// Update constants, one per parameter of the plan; none: gradients only.
    pub update: Option<&'a [Rates]>,
}

/// A network on its devices.
pub struct Engine<D: Device> {
    plan: Plan,
    ranks: Vec<Rank<D>>,
    links: Links<D>,
    /// Images of the batch that is loaded.
    images: usize,
    /// The batch whose upload may still be under way.
    in_flight: Option<Batch>,
    exchanged: AtomicU64,
    graphs: Option<Graphs<D>>,
    /// Whether messages forward, backward and of the update have swapped buffers an odd number of times.
    swapped: [bool; 3],
    board: Arc<Board>,
    watchdog: Option<Watchdog>,
    faults: Option<&'static Faults>,
    /// Steps between checked exchanges; 0: none is checked.
    check_exchange: u64,
    /// Whether a loss that is not finite ends a training step.
    check_loss: bool,
}

impl<D: Device> Engine<D> {
    /// Puts the columns of `plan` on `devices`: one each, or all on the only one. The parameters
    /// are zero until they are set. `keep_gradients` gives every gradient memory of its own, for
    /// accumulation and inspection.
    ///
    /// # Errors
    /// `Usage` where devices and columns do not match; `Device` where memory does not suffice, with the largest batch
    /// that fits.
    pub fn new(
        plan: Plan,
        devices: Vec<D>,
        side: usize,
        seed: u64,
        keep_gradients: bool,
    ) -> Result<Self> {
        let count = devices.len();
        if count != 1 && count != plan.columns {
            return Err(usage(format!(
                "{count} devices for a network of {} column(s): give one device, or one for each column",
                plan.columns
            )));
        }
        let (plan, devices) = agree(plan, devices)?;
        footprint::check(&plan, &devices, side, keep_gradients)?;
        let key = Key::new(seed, Purpose::Dropout);
        let board = Arc::new(Board::new(devices.iter().map(Device::name)));
        let faults = fault::active();
        let mut ranks = Vec::with_capacity(count);
        for (index, device) in devices.into_iter().enumerate() {
            let columns = if count == 1 {
                0..plan.columns
            } else {
                index..index + 1
            };
            if let Some(faults) = faults {
                faults
                    .at_device(index, 0)
                    .map_err(|error| on_device(&board, index, &device.name(), error))?;
            }
            let post = Post {
                index,
                board: board.clone(),
                checked: false,
                corrupt: false,
            };
            ranks.push(Rank::new(
                device,
                post,
                &plan,
                columns,
                side,
                key,
                keep_gradients,
            )?);
        }
        let links = Links::new(&plan, &mut ranks)?;
        let mut engine = Engine {
            plan,
            ranks,
            links,
            images: 0,
            in_flight: None,
            exchanged: AtomicU64::new(0),
            graphs: None,
            swapped: [false; 3],
            board,
            watchdog: None,
            faults,
            check_exchange: 0,
            check_loss: false,
        };
        engine.set_graphs(true)?;
        Ok(engine)
    }

    /// Has all that can wait for a device watched from now on.
    pub fn set_watchdog(&mut self, watchdog: Option<Watchdog>) {
        self.watchdog = watchdog;
    }

    /// Where the devices are, to be read from any thread.
    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Compares checksums of both sides of every exchange in each `every`th training step; 0: in
    /// none. Steps are those that [`Dropping::Counter`] counts.
    pub fn set_check_exchange(&mut self, every: u64) {
        self.check_exchange = every;
    }

    /// Ends a training step, before anything is updated, with an [`Error::Numeric`] where its
    /// loss is not finite; on devices whose loss can be read without waiting.
    pub fn set_check_loss(&mut self, on: bool) {
        self.check_loss = on;
    }

    /// Makes the engine usable again after a training step that ended with [`Error::Numeric`]:
    /// its exchanges start anew. Parameters stay as they are.
    pub fn reopen(&mut self) -> Result<()> {
        let graphs = self.graphs.take().is_some();
        self.renew_links()?;
        self.ranks.iter_mut().for_each(|rank| rank.post.as_usual());
        self.set_graphs(graphs)?;
        self.take_score().map(drop)
    }

    /// Lets the exchanges start anew.
    fn renew_links(&mut self) -> Result<()> {
        self.links = Links::none(); // first, so that old and new never coexist
        self.links = Links::new(&self.plan, &mut self.ranks)?;
        self.swapped = [false; 3];
        Ok(())
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The scale of the loss, where the precision needs one.
    pub fn loss_scale(&mut self) -> Result<Option<LossScale>> {
        let state = self.watched(Work::Copy, |engine| engine.ranks[0].loss_scale())?;
        Ok(state.map(|(scale, _)| scale))
    }

    /// Sets it; nothing where the precision needs none.
    pub fn set_loss_scale(&mut self, scale: LossScale) -> Result<()> {
        self.watched(Work::Copy, |engine| {
            let mut ranks = engine.ranks.iter_mut();
            ranks.try_for_each(|rank| rank.set_loss_scale(scale))
        })
    }

    /// Names of the devices, in the order of the columns.
    pub fn device_names(&self) -> Vec<String> {
        self.ranks.iter().map(|rank| rank.device.name()).collect()
    }

    /// Gives the devices back; the network's memory is freed.
    pub fn into_devices(self) -> Vec<D> {
        self.ranks.into_iter().map(|rank| rank.device).collect()
    }

    /// What an engine for `plan` will take of each device's memory, with the arguments of [`Engine::new`].
    pub fn needed(plan: &Plan, devices: &[D], side: usize, keep_gradients: bool) -> Vec<Needed> {
        footprint::of_devices(plan, devices, side, keep_gradients)
            .iter()
            .zip(devices)
            .map(|(footprint, device)| footprint.needed(plan.batch, device))
            .collect()
    }

    /// Bytes allocated on each device.
    pub fn allocated_bytes(&self) -> Vec<usize> {
        self.ranks
            .iter()
            .map(|rank| rank.device.allocated_bytes())
            .collect()
    }

    /// Bytes sent from device to device since the engine was made.
    pub fn exchanged_bytes(&self) -> u64 {
        self.exchanged.load(Ordering::Relaxed)
    }

    /// Memory for batches that upload fastest to these devices.
    pub fn host_allocator(&self) -> crate::batch::HostAllocator {
        self.ranks[0].device.host_allocator()
    }

    /// Sets the mean image, `[side][side][colour]`, that [`Engine::load`] subtracts.
    pub fn set_mean(&mut self, mean: &[f32]) -> Result<()> {
        self.ranks
            .iter_mut()
            .try_for_each(|rank| rank.set_mean(mean))
    }

    /// Starts the upload of a batch and makes it the next step's input. Gives back the batch
    /// before, to be filled again.
    pub fn load(&mut self, batch: Batch) -> Result<Option<Batch>> {
        self.watched(Work::Wait, |engine| engine.load_batch(batch))
    }

    fn load_batch(&mut self, batch: Batch) -> Result<Option<Batch>> {
        self.images = batch.len();
        let images = self.images;
        for rank in &mut self.ranks {
            rank.upload(&batch)?;
        }
        let retired = self.in_flight.replace(batch);
        self.each_rank(|rank, plan, _| rank.augment(plan, images))?;
        Ok(retired)
    }

    /// Waits until the last loaded batch has been read and gives it back. The input stays loaded.
    pub fn unload(&mut self) -> Result<Option<Batch>> {
        self.watched(Work::Wait, |engine| {
            engine.ranks.iter_mut().try_for_each(Rank::arrived)
        })?;
        Ok(self.in_flight.take())
    }

    /// Makes images that are already cropped and mean-subtracted, `[images, 3, side, side]`, the
    /// next step's input.
    pub fn load_images(&mut self, images: &[f32], labels: &[u32]) -> Result<()> {
        self.images = labels.len();
        self.watched(Work::Wait, |engine| {
            let (plan, mut ranks) = (&engine.plan, engine.ranks.iter_mut());
            ranks.try_for_each(|rank| rank.load_images(plan, images, labels))
        })
    }

    /// Forward, loss, backward and, where asked for, the update, on the loaded batch. The loss is
    /// the mean over `whole_batch` images; read it with [`Engine::take_score`].
    pub fn train_step(&mut self, context: &StepContext<'_>) -> Result<()> {
        if let Dropping::Counter { step } = context.dropping {
            self.board.set_step(step + 1);
        }
        self.watched(Work::Step, |engine| engine.train(context))
    }

    fn train(&mut self, context: &StepContext<'_>) -> Result<()> {
        self.write_later(context)?;
        let step = self.board.step();
        let checked = self.check_exchange > 0 && step.is_multiple_of(self.check_exchange);
        // What a graph holds cannot look at its messages, nor fail on purpose.
        if checked || self.faults.is_some() || !self.graph_step(context)? {
            self.step_by_threads(context, step, checked)?;
        }
        let [forward, backward, update] = &mut self.swapped;
        *forward = !*forward;
        *backward = !*backward;
        *update ^= context.update.is_some();
        match self.faults {
            Some(faults) if context.update.is_some() => self.put_nans(faults, step),
            _ => Ok(()),
        }
    }

    fn step_by_threads(
        &mut self,
        context: &StepContext<'_>,
        step: u64,
        checked: bool,
    ) -> Result<()> {
        let (images, faults, check_loss) = (self.images, self.faults, self.check_loss);
        self.each_rank(|rank, plan, links| {
            rank.post.checked = checked;
            if let Some(faults) = faults {
                faults.at_device(rank.post.index, step)?;
                rank.post.corrupt = faults.strikes(Kind::PeerCorrupt, rank.post.index, step);
            }
            rank.forward(plan, links, images, context.dropping, context.first_image)?;
            rank.loss(plan, images)?;
            if check_loss {
                rank.check_loss(images)?;
            }
            rank.backward(plan, links, images, context)?;
            rank.post.as_usual();
            Ok(())
        })?;
        self.count_sent();
        Ok(())
    }

    /// The bytes sent since the last call, by all ranks.
    fn take_sent(&mut self) -> u64 {
        let ranks = self.ranks.iter_mut();
        ranks.map(|rank| std::mem::take(&mut rank.sent)).sum()
    }

    fn count_sent(&mut self) {
        let sent = self.take_sent();
        self.exchanged.fetch_add(sent, Ordering::Relaxed);
    }

    /// The test-time network on the loaded batch, its loss and errors added to the score.
    pub fn test_step(&mut self) -> Result<()> {
        let images = self.images;
        self.watched(Work::Evaluation, |engine| {
            engine.each_rank(|rank, plan, links| {
                rank.forward(plan, links, images, Dropping::Off, 0)?;
                rank.loss(plan, images)
            })
        })?;
        self.count_sent();
        self.swapped[0] = !self.swapped[0];
        Ok(())
    }

    /// Loss and errors summed since the last call. Waits for the devices.
    pub fn take_score(&mut self) -> Result<Score> {
        self.watched(Work::Wait, |engine| engine.ranks[0].take_score())
    }

    /// Class probabilities of the last step, `[images, classes]`.
    pub fn probabilities(&mut self) -> Result<Vec<f32>> {
        let elements = self.images * self.plan.classes;
        self.watched(Work::Wait, |engine| engine.ranks[0].probabilities(elements))
    }

    /// Values of a slot after a forward pass, `[images, maps, height, width]`, columns joined.
    pub fn activations(&mut self, slot: SlotId) -> Result<Vec<f32>> {
        let images = self.images;
        self.watched(Work::Copy, |engine| {
            tensors::activations(&mut engine.ranks, &engine.plan, slot, images)
        })
    }

    /// Waits until all devices have done what was issued.
    pub fn synchronize(&mut self) -> Result<()> {
        self.watched(Work::Wait, |engine| {
            let mut devices = engine.ranks.iter_mut().map(|rank| &mut rank.device);
            devices.try_for_each(D::synchronize)
        })
    }

    /// Does something under the eyes of the watchdog, if there is one.
    fn watched<T>(&mut self, work: Work, action: impl FnOnce(&mut Self) -> T) -> T {
        let Some(watchdog) = self.watchdog.take() else {
            return action(self);
        };
        watchdog.begin(work);
        let result = action(self);
        watchdog.end();
        self.watchdog = Some(watchdog);
        result
    }

    /// Runs `work` on every rank at the same time. If one fails the others are released from
    /// their waits, and the first failure is returned.
    fn each_rank(
        &mut self,
        work: impl Fn(&mut Rank<D>, &Plan, &Links<D>) -> Result<()> + Sync,
    ) -> Result<()> {
        let (plan, links, board) = (&self.plan, &self.links, &*self.board);
        let guarded = |rank: &mut Rank<D>| -> Result<()> {
            let index = rank.post.index;
            board.set(index, Doing::Working);
            let work = std::panic::AssertUnwindSafe(|| work(rank, plan, links));
            let result = std::panic::catch_unwind(work);
            board.set(index, Doing::Nothing);
            result.unwrap_or_else(|panic| {
                let text = panic_text(&*panic);
                Err(device(format!("internal error: {text}")))
            })
        };
        if let [rank] = &mut self.ranks[..] {
            return guarded(rank).map_err(|error| on_device(board, 0, &rank.device.name(), error));
        }
        let first: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for rank in &mut self.ranks {
                let (guarded, first) = (&guarded, &first);
                scope.spawn(move || {
                    if let Err(error) = guarded(rank) {
                        let error = on_device(board, rank.post.index, &rank.device.name(), error);
                        first
                            .lock()
                            .unwrap_or_else(|e| e.into_inner())
                            .get_or_insert(error);
                        links.abandon();
                    }
                });
            }
        });
        first
            .into_inner()
            .unwrap_or_else(|e| e.into_inner())
            .map_or(Ok(()), Err)
    }
}

/// Makes all devices compute in the plan's precision, or, where one cannot, in f32.
fn agree<D: Device>(plan: Plan, mut devices: Vec<D>) -> Result<(Plan, Vec<D>)> {
    let mut precision = plan.precision;
    for device in &devices {
        precision = device.precision_for(precision)?;
    }
    let set = |device: &mut D| device.set_precision(precision);
    devices.iter_mut().try_for_each(set)?;
    Ok((plan.in_precision(precision)?, devices))
}

/// An error of a device, with its name.
fn on_device(board: &Board, index: usize, name: &str, error: Error) -> Error {
    match error {
        Error::Device(text) if !text.contains(name) => {
            device(format!("{}: {text}", board.name(index)))
        }
        error => error,
    }
}
