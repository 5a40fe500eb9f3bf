//! What `train` says at its end.

use super::job::Prepared;
use crate::checkpoint::FILE_NAME;
use crate::error::{Error, Result};
use crate::report::format::shell_word;
use crate::report::metrics;
use crate::report::summary::Summary;
use crate::train::{METRICS, Outcome};

/// What a run is about.
pub struct About {
    /// "two columns of width 0.25 on the built-in data".
    what: String,
    /// Of the user's own, not built in.
    own_data: bool,
    validated: bool,
}

impl About {
    pub fn of(session: &Prepared) -> Self {
        About {
            what: what(session),
            own_data: session.name.is_some(),
            validated: session.data.val.is_some(),
        }
    }
}

fn what(session: &Prepared) -> String {
    let network = &session.config.network;
    let columns = if network.columns == 1 {
        "one column"
    } else {
        "two columns"
    };
    let data = session
        .name
        .as_ref()
        .map_or("the built-in data".into(), |d| d.display().to_string());
    format!("{columns} of width {} on {data}", network.width)
}

/// The command that goes on with the run: to its end where it was stopped, beyond it else.
fn go_on(outcome: &Outcome) -> (String, String) {
    let command = format!(
        "alexnet-mp train --resume --out {}",
        shell_word(&outcome.folder)
    );
    match outcome.stopped {
        Some(_) => (command, "go on where it stopped".into()),
        None => {
            let more = outcome.steps * 2;
            (format!("{command} --steps {more}"), "train on".into())
        }
    }
}

/// Commands to try after a run.
fn next(outcome: &Outcome, about: &About) -> Vec<(String, String)> {
    let run = shell_word(&outcome.folder);
    let mut next = vec![go_on(outcome)];
    let mut add = |command: String, what: &str| next.push((command, what.into()));
    if about.own_data && about.validated {
        let command = format!("alexnet-mp evaluate --weights {run} --views 10");
        add(command, "average over ten crops of each image");
    }
    if about.own_data {
        let command = format!("alexnet-mp predict --weights {run} FILE");
        add(command, "what an image shows");
    } else {
        let command = "alexnet-mp train --data DIR --config quickstart".into();
        add(command, "learn a folder of your own images");
        let what = "the paper's two columns and what crosses between them";
        add("alexnet-mp plan".into(), what);
    }
    next
}

/// The end of a run in words: what it came to, where it is, what to try next.
pub fn summary(outcome: &Outcome, about: About) -> Result<String> {
    let records = metrics::read(&outcome.folder.join(METRICS))?;
    let mut files = vec![
        (
            FILE_NAME.into(),
            "weights, momentum and everything --resume needs".into(),
        ),
        (
            METRICS.into(),
            "logged steps and evaluations; events.out.* for TensorBoard".into(),
        ),
    ];
    for picture in &outcome.pictures {
        let name = picture
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let holds = if name == "conv1.png" {
            "conv1's kernels, one block a column (paper, Fig. 3)"
        } else {
            "loss and error over the steps"
        };
        files.push((name, holds.into()));
    }
    let ended = outcome
        .stopped
        .map(|signal| Error::Interrupted(signal).to_string());
    let summary = Summary {
        next: next(outcome, &about),
        what: about.what,
        ended,
        time: outcome.time,
        steps: outcome.steps,
        epochs: outcome.epochs,
        batch: outcome.batch,
        classes: outcome.classes,
        records: &records,
        folder: outcome.folder.clone(),
        files,
    };
    Ok(summary.to_string())
}
