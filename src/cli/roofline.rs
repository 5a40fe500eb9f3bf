//! How `bench --roofline` shows floors.

use crate::bench::{Roofline, StepTimes};
use crate::config::Config;
use crate::report::format::percent;
use crate::report::tables::table;

/// A table of the layers of one column, and the step against the sum of its floors.
pub fn text(roofline: &Roofline, times: &StepTimes, config: &Config) -> String {
    let row = |f: &crate::bench::Floor| {
        vec![
            f.layer.clone(),
            f.pass.into(),
            format!("{:.2}", f.gflop),
            format!("{:.1}", f.megabytes),
            format!("{:.1}", f.floor_microseconds),
            f.bound_by.into(),
            format!("{:.1}", f.microseconds),
            share(f.floor_microseconds, f.microseconds),
        ]
    };
    let mut rows: Vec<Vec<String>> = roofline.floors.iter().map(row).collect();
    let (floor, sum) = (
        1e3 * roofline.floor_milliseconds,
        1e3 * roofline.milliseconds,
    );
    let none = String::new;
    rows.push(vec![
        "sum".into(),
        none(),
        none(),
        none(),
        format!("{floor:.1}"),
        none(),
        format!("{sum:.1}"),
        share(floor, sum),
    ]);
    let header = [
        "layer",
        "pass",
        "GFLOP",
        "MB",
        "floor µs",
        "bound by",
        "µs",
        "share",
    ];
    // Columns on one device run in turn, on several side by side.
    let columns = config.network.columns as f64 / times.devices.len() as f64;
    let (step, least) = (
        times.median() * 1e3,
        roofline.floor_milliseconds * columns.max(1.0),
    );
    let how = if roofline.measured {
        "measured"
    } else {
        "nominal"
    };
    format!(
        "one column's floors, {}: {:.1} TFLOP/s and {:.2} TB/s, {how}; element by element work counted as nothing\n{}\n\
         step: {step:.3} ms, floor {least:.3} ms, share {}",
        config.train.precision,
        roofline.peak_flops / 1e12,
        roofline.bandwidth / 1e12,
        table(&header, &rows),
        share(least, step),
    )
}

fn share(floor: f64, time: f64) -> String {
    if time > 0.0 {
        percent(floor / time, 0)
    } else {
        String::new()
    }
}
