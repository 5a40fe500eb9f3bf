//! What `train` says at its end.

use super::job::Prepared;
use crate::checkpoint::FILE_NAME;
use crate::error::{Error, Result};
use crate::report::format::shell_word;
use crate::report::metrics;
use crate::report::summary::Summary;
use crate::train::{METRICS, Outcome};

/// "two columns of width 0.25 on the built-in data".
pub fn what(session: &Prepared) -> String {
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

/// The end of a run in words: what it came to, where it is, what to try next.
pub fn summary(outcome: &Outcome, what: String) -> Result<String> {
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
    let next = vec![
        go_on(outcome),
        (
            "alexnet-mp train --data DIR --config quickstart".into(),
            "learn a folder of your own images".into(),
        ),
        (
            "alexnet-mp plan".into(),
            "the paper's two columns and what crosses between them".into(),
        ),
    ];
    let ended = outcome
        .stopped
        .map(|signal| Error::Interrupted(signal).to_string());
    let summary = Summary {
        what,
        ended,
        time: outcome.time,
        steps: outcome.steps,
        epochs: outcome.epochs,
        batch: outcome.batch,
        classes: outcome.classes,
        records: &records,
        folder: outcome.folder.clone(),
        files,
        next,
    };
    Ok(summary.to_string())
}
