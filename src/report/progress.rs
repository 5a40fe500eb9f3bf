//! Progress on stderr: a bar on a terminal, plain lines elsewhere, nothing when quiet.
//! Messages meanwhile go through [`super::messages`].

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, MultiProgress, ProgressBar, ProgressStyle};

use super::format::{percent, rate};
use super::messages::{BARS, on_terminal};
use super::metrics::{EvaluationRecord, StepRecord};

/// Seconds between two plain lines.
const LINE_SECONDS: u64 = 10;

/// How far a piece of work is. Dropping it takes the bar away.
pub struct Progress {
    display: Display,
    /// What is counted, in the plural.
    unit: String,
    started: Instant,
    /// Whether the first unit is worth a plain line at once: it shows that a run runs.
    eager: bool,
    /// Where this process began; time before it is not part of the remaining time's estimate.
    first: u64,
    state: Mutex<State>,
}

enum Display {
    Bar(ProgressBar),
    Lines {
        sink: Mutex<Box<dyn Write + Send>>,
        every: Duration,
    },
    Quiet,
}

#[derive(Default)]
struct State {
    title: String,
    done: u64,
    total: u64,
    /// Numbers of the newest step.
    numbers: String,
    /// Numbers of the newest evaluation.
    validation: String,
    last_line: Option<(Instant, u64)>,
}

impl Progress {
    /// Progress of a training run that has done `first` of its `steps` steps before.
    pub fn training(first: u64, steps: u64, quiet: bool) -> Self {
        Self::new("training", "steps", first, steps, display(quiet)).eager()
    }

    /// Progress of anything else: `title` ("evaluating") and `total` of `unit` ("images").
    pub fn counting(title: &str, total: u64, unit: &str, quiet: bool) -> Self {
        Self::new(title, unit, 0, total, display(quiet))
    }

    fn eager(mut self) -> Self {
        self.eager = true;
        self
    }

    fn new(title: &str, unit: &str, first: u64, total: u64, display: Display) -> Self {
        let progress = Progress {
            display,
            unit: unit.into(),
            eager: false,
            started: Instant::now(),
            first,
            state: Mutex::new(State {
                title: title.into(),
                done: first,
                total,
                ..State::default()
            }),
        };
        if let Display::Bar(_) = progress.display {
            progress.show(&mut lock(&progress.state), false);
        }
        progress
    }

    /// A step is done: shows its numbers.
    pub fn step(&self, record: &StepRecord) {
        let mut state = lock(&self.state);
        state.done = record.step;
        state.numbers = format!(
            "epoch {:.2} · loss {:.3} · error {} · {} images/s · data wait {}",
            record.epoch,
            record.loss,
            percent(record.top1_error, 1),
            rate(record.images_per_second),
            percent(record.data_wait, 0),
        );
        self.show(&mut state, false);
    }

    /// An evaluation is done: shows its result until the next one.
    pub fn evaluation(&self, record: &EvaluationRecord) {
        let mut state = lock(&self.state);
        state.validation = format!(
            "validation at step {}: top-1 error {} · top-5 error {} · loss {:.3}",
            record.step,
            percent(record.val_top1_error, 2),
            percent(record.val_top5_error, 2),
            record.val_loss,
        );
        if let Display::Lines { sink, .. } = &self.display {
            write_line(sink, &state.validation);
        }
        self.show(&mut state, false);
    }

    /// `more` units are done.
    pub fn advance(&self, more: u64) {
        let mut state = lock(&self.state);
        state.done += more;
        let made = state.done.saturating_sub(self.first) as f64;
        let pace = made / self.started.elapsed().as_secs_f64().max(1e-9);
        state.numbers = format!("{} {}/s", rate(pace), self.unit);
        self.show(&mut state, false);
    }

    /// Another word before the bar, such as "validating" while no step is made.
    pub fn set_title(&self, title: &str) {
        let mut state = lock(&self.state);
        state.title = title.into();
        self.show(&mut state, false);
    }

    /// Another end, where a schedule prolongs or ends the run.
    pub fn set_total(&self, total: u64) {
        let mut state = lock(&self.state);
        state.total = total;
        self.show(&mut state, false);
    }

    /// Takes the bar away; in plain lines, shows the last step if it has not been shown.
    pub fn finish(self) {
        self.show(&mut lock(&self.state), true);
    }

    fn show(&self, state: &mut State, last: bool) {
        match &self.display {
            Display::Quiet => {}
            Display::Bar(bar) => {
                bar.set_length(state.total);
                bar.set_prefix(format!("{} {}", state.title, self.counts(state)));
                bar.set_message(match state.validation.as_str() {
                    "" => state.numbers.clone(),
                    validation => format!("{}\n{validation}", state.numbers),
                });
                bar.set_position(state.done);
                bar.tick();
            }
            Display::Lines { sink, every } => {
                let due = match state.last_line {
                    None if self.eager => state.done > self.first,
                    // Work that is soon done needs no line at all.
                    None => self.started.elapsed() >= *every,
                    Some((when, done)) => done < state.done && (last || when.elapsed() >= *every),
                };
                if due {
                    state.last_line = Some((Instant::now(), state.done));
                    let mut line = format!("{} {}", state.title, self.counts(state));
                    if !state.numbers.is_empty() {
                        line = format!("{line} · {}", state.numbers);
                    }
                    write_line(sink, &line);
                }
            }
        }
    }

    /// "120/350 steps · ETA 00:01:23"
    fn counts(&self, state: &State) -> String {
        let counts = format!("{}/{} {}", state.done, state.total, self.unit);
        let made = state.done.saturating_sub(self.first);
        let left = state.total.saturating_sub(state.done);
        if made == 0 || left == 0 {
            return counts;
        }
        // The mean pace so far, evaluations and checkpoints included.
        let seconds = self.started.elapsed().as_secs_f64() / made as f64 * left as f64;
        let eta = FormattedDuration(Duration::from_secs_f64(seconds.min(1e9)));
        format!("{counts} · ETA {eta}")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// What fits this process's stderr.
fn display(quiet: bool) -> Display {
    if quiet {
        Display::Quiet
    } else if on_terminal() {
        Display::Bar(new_bar(&BARS))
    } else {
        Display::Lines {
            sink: Mutex::new(Box::new(io::stderr())),
            every: Duration::from_secs(LINE_SECONDS),
        }
    }
}

/// A bar, the counts before it and room for numbers below it. Colours are left out where NO_COLOR
/// is set or the terminal has none (indicatif's own rule).
fn new_bar(bars: &MultiProgress) -> ProgressBar {
    let template = "{prefix} {wide_bar:.cyan}\n{msg}";
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ");
    bars.add(ProgressBar::new(0).with_style(style))
}

/// A closed stderr is no reason to stop a run.
fn write_line(sink: &Mutex<Box<dyn Write + Send>>, line: &str) {
    let _ = writeln!(lock(sink), "{line}");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::super::messages::Above;
    use super::*;

    /// Collects what is written to it.
    #[derive(Clone, Debug, Default)]
    struct Sink(Arc<Mutex<String>>);

    impl Sink {
        fn text(&self) -> String {
            lock(&self.0).clone()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A terminal that records the text and a mark where a line is cleared.
    impl TermLike for Sink {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            lock(&self.0).push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str("<clear>")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn step(step: u64) -> StepRecord {
        StepRecord {
            step,
            epoch: 0.5,
            loss: 1.2345,
            top1_error: 0.453,
            images_per_second: 812.4,
            data_wait: 0.02,
            ..Default::default()
        }
    }

    fn lines(first: u64, steps: u64, every: Duration) -> (Progress, Sink) {
        let sink = Sink::default();
        let display = Display::Lines {
            sink: Mutex::new(Box::new(sink.clone())),
            every,
        };
        let progress = Progress::new("training", "steps", first, steps, display);
        (progress.eager(), sink)
    }

    #[test]
    fn plain_lines_hold_every_number_and_no_control_characters() {
        let (progress, sink) = lines(0, 3, Duration::ZERO);
        progress.step(&step(1));
        progress.evaluation(&EvaluationRecord {
            step: 1,
            val_top1_error: 0.125,
            ..Default::default()
        });
        progress.finish();
        let text = sink.text();
        let numbers = "epoch 0.50 · loss 1.234 · error 45.3 % · 812 images/s · data wait 2 %";
        assert!(
            text.starts_with("training 1/3 steps · ETA 00:00:0"),
            "{text}"
        );
        assert!(text.contains(numbers), "{text}");
        assert!(
            text.contains("\nvalidation at step 1: top-1 error 12.50 %"),
            "{text}"
        );
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
    }

    #[test]
    fn plain_lines_are_rare_but_show_the_first_and_the_last_step() {
        let (progress, sink) = lines(10, 20, Duration::from_secs(3600));
        for number in 11..=20 {
            progress.step(&step(number));
        }
        progress.finish();
        let text = sink.text();
        let shown: Vec<&str> = text.lines().map(|line| &line[..20]).collect();
        assert_eq!(shown, ["training 11/20 steps", "training 20/20 steps"]);
    }

    #[test]
    fn short_work_that_is_only_counted_gets_no_plain_line() {
        let (mut progress, sink) = lines(0, 3, Duration::from_secs(3600));
        progress.eager = false;
        progress.advance(2);
        progress.advance(1);
        progress.finish();
        assert_eq!(sink.text(), "");
    }

    #[test]
    fn a_message_is_written_after_the_bar_is_cleared_and_the_bar_comes_back() {
        let sink = Sink::default();
        let target = ProgressDrawTarget::term_like(Box::new(sink.clone()));
        let bars = MultiProgress::with_draw_target(target);
        let bar = new_bar(&bars);
        let progress = Progress::new("training", "steps", 0, 100, Display::Bar(bar));
        progress.step(&step(50));
        let mut above = Above::new(&bars, Box::new(sink.clone()));
        write!(above, "warning: {{the loss}} ").unwrap();
        writeln!(above, "stands still").unwrap();
        drop(above);
        let text = sink.text();
        let (before, after) = text
            .split_once("warning: {the loss} stands still\n")
            .unwrap();
        assert!(before.ends_with("<clear>"), "{before:?}");
        assert!(
            after.contains("50/100 steps") && after.contains("data wait 2 %"),
            "{after:?}"
        );
    }

    #[test]
    fn quiet_progress_shows_nothing() {
        let progress = Progress::training(0, 10, true);
        assert!(matches!(progress.display, Display::Quiet));
        progress.step(&step(10));
        progress.finish();
    }
}
