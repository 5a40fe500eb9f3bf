//! Training steps captured as graphs of the devices: a step that was issued once is launched as a whole from then on.
//!
//! What a graph was captured with must still hold when it is launched: the key says what that is. Messages swap
//! buffers with their mailboxes, and batches alternate between two inputs, so that a few graphs serve in turn. The
//! values that change from step to step are read from the devices' memory.

use super::links::Pass;
use super::update::{later_size, later_words};
use super::{Dropping, Engine, StepContext};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::network::plan::Stage;

/// Graphs kept at a time, the oldest given up first.
const MOST: usize = 16;

/// What a graph was captured with.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    images: usize,
    first_image: usize,
    whole_batch: usize,
    drops: bool,
    accumulate: bool,
    update: bool,
    /// Which input is in use; how often messages forward, backward and of the update have swapped buffers.
    input: usize,
    swapped: [bool; 3],
    /// Moves of the devices' work space.
    generation: u64,
}

/// A graph, and the bytes that it sends.
struct Captured<D: Device> {
    key: Key,
    graph: D::Graph,
    sent: u64,
}

/// The graphs of an engine.
pub(super) struct Graphs<D: Device> {
    captured: Vec<Captured<D>>,
    /// Keys of steps that were issued one by one: work space has its size, and libraries are ready.
    seen: Vec<Key>,
    words: Vec<u32>,
}

impl<D: Device> Engine<D> {
    /// Whether training steps are captured as graphs and launched as a whole, where the devices
    /// can: from the first step on they are unless this says no. Results are the same bits.
    ///
    /// # Errors
    /// `Device` where memory does not suffice.
    pub fn set_graphs(&mut self, on: bool) -> Result<()> {
        let on = on && self.ranks.iter().all(|rank| rank.device.captures());
        let size = later_size(self.plan.params.len());
        for rank in &mut self.ranks {
            rank.later = match on {
                true => Some(rank.device.allocate(size)?),
                false => None,
            };
        }
        self.graphs = on.then(|| Graphs {
            captured: vec![],
            seen: vec![],
            words: Vec::with_capacity(size),
        });
        Ok(())
    }

    /// Whether they are.
    pub fn has_graphs(&self) -> bool {
        self.graphs.is_some()
    }

    /// A training step by a graph, where there is one or one can be captured by now, and the devices
    /// take it; else no, and the step is still to be done.
    pub(super) fn graph_step(&mut self, context: &StepContext<'_>) -> Result<bool> {
        let Some(key) = self.key(context) else {
            return Ok(false);
        };
        let Some(graphs) = &mut self.graphs else {
            return Ok(false);
        };
        if let Some(place) = graphs.captured.iter().position(|c| c.key == key) {
            self.swap_messages(context.update.is_some())?;
            return self.launch(place);
        }
        if !graphs.seen.contains(&key) {
            graphs.seen.push(key);
            return Ok(false);
        }
        match self.capture(key, context)? {
            Some(place) => self.launch(place),
            None => Ok(false),
        }
    }

    /// Brings what the captured kernels read later to the devices.
    pub(super) fn write_later(&mut self, context: &StepContext<'_>) -> Result<()> {
        let Some(graphs) = &mut self.graphs else {
            return Ok(());
        };
        let step = match context.dropping {
            Dropping::Counter { step } => step,
            Dropping::Given | Dropping::Off => 0,
        };
        later_words(step, context.update, &mut graphs.words);
        for rank in &mut self.ranks {
            rank.write_later(&graphs.words)?;
        }
        Ok(())
    }

    fn key(&self, context: &StepContext<'_>) -> Option<Key> {
        let drops = match context.dropping {
            Dropping::Counter { .. } => true,
            Dropping::Off => false,
            // Masks are new memory each time.
            Dropping::Given => return None,
        };
        Some(Key {
            images: self.images,
            first_image: context.first_image,
            whole_batch: context.whole_batch,
            drops,
            accumulate: context.accumulate,
            update: context.update.is_some(),
            input: self.ranks[0].current_input(),
            swapped: match self.ranks.len() {
                1 => [false; 3],
                _ => self.swapped,
            },
            generation: self.ranks.iter().map(|r| r.device.generation()).sum(),
        })
    }

    /// Captures a step; the place of its graph. None, with a warning, where the devices refuse: then graphs are off,
    /// and the step is still to be done.
    fn capture(&mut self, key: Key, context: &StepContext<'_>) -> Result<Option<usize>> {
        let graph = self.captured(context);
        let sent = self.take_sent();
        let graphs = self.graphs.as_mut().expect("graphs are on");
        match graph {
            Ok(graph) => {
                if graphs.captured.len() == MOST {
                    graphs.captured.remove(0);
                }
                graphs.captured.push(Captured { key, graph, sent });
                Ok(Some(graphs.captured.len() - 1))
            }
            Err(error) => {
                self.do_without(&error)?;
                Ok(None)
            }
        }
    }

    fn captured(&mut self, context: &StepContext<'_>) -> Result<D::Graph> {
        D::begin_capture(&mut self.devices())?;
        let issued = self.lockstep(context);
        let graph = D::end_capture(&mut self.devices());
        // What could not be issued is the reason why nothing was captured.
        issued.and(graph)
    }

    fn devices(&mut self) -> Vec<&mut D> {
        self.ranks.iter_mut().map(|rank| &mut rank.device).collect()
    }

    /// Ends the use of graphs, with a warning. A capture or a launch that came to nothing has left messages on their way
    /// and events that will never happen.
    fn do_without(&mut self, reason: &Error) -> Result<()> {
        tracing::warn!("{reason}; steps are launched one operation at a time from here on");
        self.set_graphs(false)?;
        self.devices()
            .into_iter()
            .try_for_each(|device| device.synchronize())?;
        self.renew_links()
    }

    /// One training step of all ranks in turn, stage by stage.
    fn lockstep(&mut self, context: &StepContext<'_>) -> Result<()> {
        let (plan, links, images) = (&self.plan, &self.links, self.images);
        let ranks = &mut self.ranks;
        for stage in &plan.stages {
            for rank in ranks.iter_mut() {
                rank.send_forward(plan, links, images, stage)?;
            }
            for rank in ranks.iter_mut() {
                let (dropping, first) = (context.dropping, context.first_image);
                rank.stage_forward(plan, links, images, stage, dropping, first)?;
            }
        }
        for rank in ranks.iter_mut() {
            rank.loss(plan, images)?;
            rank.loss_gradient(plan, images, context.whole_batch)?;
        }
        for stage in plan.stages.iter().rev() {
            for rank in ranks.iter_mut() {
                rank.stage_backward(plan, links, images, stage, context)?;
            }
        }
        let Some(rates) = context.update else {
            return Ok(());
        };
        for rank in ranks.iter_mut() {
            rank.check_gradients(links)?;
        }
        ranks
            .iter_mut()
            .try_for_each(|rank| rank.update(links, rates))
    }

    /// Launches a graph; no where the devices refuse, as in [`capture`](Self::capture).
    fn launch(&mut self, place: usize) -> Result<bool> {
        let Some(graphs) = &self.graphs else {
            return Ok(false);
        };
        let Captured { graph, sent, .. } = &graphs.captured[place];
        let (first, rest) = self.ranks.split_at_mut(1);
        let second = rest.first_mut().map(|rank| rank.with_input());
        if let Some(refused) = D::launch_graph(graph, first[0].with_input(), second)? {
            self.do_without(&refused)?;
            return Ok(false);
        }
        self.exchanged
            .fetch_add(*sent, std::sync::atomic::Ordering::Relaxed);
        Ok(true)
    }

    /// Does what the messages of a captured step do on the host: swap buffers.
    fn swap_messages(&mut self, update: bool) -> Result<()> {
        let (plan, links) = (&self.plan, &self.links);
        for stage in &plan.stages {
            let Stage::Exchange { slot, readers } = *stage else {
                continue;
            };
            for column in self.ranks.iter_mut().flat_map(|rank| &mut rank.columns) {
                for other in (0..plan.columns).filter(|&other| other != column.index) {
                    let forward = links.get(Pass::Forward, slot, other, column.index);
                    let backward = links.get(Pass::Backward, slot, other, column.index);
                    if column.index < readers
                        && let Some(link) = forward
                    {
                        let inbox = column.inboxes[slot]
                            .as_mut()
                            .expect("a reader has an inbox");
                        link.swap(inbox)?;
                    }
                    if other < readers
                        && let Some(link) = backward
                    {
                        let returned = column.returns[slot].as_mut();
                        link.swap(returned.expect("a read column has a return box"))?;
                    }
                }
            }
        }
        for rank in self.ranks.iter_mut().filter(|_| update) {
            let column = rank.columns[0].index;
            if let Some(scaling) = &mut rank.scaling {
                for mailbox in links.scales_to(column) {
                    D::swap_message(mailbox, &mut scaling.inbox)?;
                }
            }
        }
        Ok(())
    }
}
