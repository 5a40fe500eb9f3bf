//! A plan as text: the columns side by side, the crossings between them, and what it costs.

use super::op::{Activation, Window};
use super::plan::{Plan, Stage, Step};
use std::fmt::Write;
use toml::{Table, Value};

/// Width of one column's text, and of the space between two.
const CELL: usize = 44;
const BETWEEN: usize = 22;

const LEGEND: &str = "
Shapes are maps×height×width; a kernel height×width×input maps, / its stride, + its padding.

";

/// The plan as `alexnet-mp plan` prints it.
pub fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    heading(plan, &mut text);
    for stage in &plan.stages {
        match stage {
            Stage::Exchange { slot, readers } => crossing(plan, *slot, *readers, &mut text),
            Stage::Compute { layer, steps } => {
                let cells: Vec<String> = steps.iter().map(|step| cell(plan, layer, step)).collect();
                row(&cells, plan.columns, &mut text);
            }
        }
    }
    text.push_str(LEGEND);
    costs(plan, &mut text);
    totals(plan, &mut text);
    text
}

/// The values in which two configurations differ.
pub fn difference(name_a: &str, a: &Table, name_b: &str, b: &Table) -> String {
    let mut rows = differences(a, b);
    if rows.is_empty() {
        return format!("{name_a} and {name_b} are the same");
    }
    rows.insert(0, ["key".to_string(), name_a.into(), name_b.into()]);
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let lines: Vec<String> = rows
        .iter()
        .map(|[key, a, b]| format!("{key:first$}  {a:second$}  {b}"))
        .collect();
    lines.join("\n")
}

/// The keys whose values differ in two configurations, each with both values.
pub fn differences(a: &Table, b: &Table) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    let [a, b] = [a, b].map(|table| Value::Table(table.clone()));
    compare("", &a, &b, &mut rows);
    rows
}

fn compare(path: &str, a: &Value, b: &Value, rows: &mut Vec<[String; 3]>) {
    if let (Value::Table(a), Value::Table(b)) = (a, b) {
        let mut keys: Vec<&String> = a.keys().collect();
        keys.extend(b.keys().filter(|key| !a.contains_key(*key)));
        for key in keys {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let absent = Value::String("–".into());
            compare(
                &path,
                a.get(key).unwrap_or(&absent),
                b.get(key).unwrap_or(&absent),
                rows,
            );
        }
    } else if a != b {
        rows.push([path.into(), a.to_string(), b.to_string()]);
    }
}

fn heading(plan: &Plan, text: &mut String) {
    let titles: Vec<String> = (0..plan.columns).map(|c| format!("column {c}")).collect();
    row(&titles, plan.columns, text);
    let image = format!("{:<7}{}", "image", plan.slots[plan.input].shape);
    row(&vec![image; plan.columns], plan.columns, text);
}

/// One line: a cell per column, padded; columns that sit a step out are left blank.
fn row(cells: &[String], columns: usize, text: &mut String) {
    let mut line = String::new();
    for c in 0..columns {
        let cell = cells.get(c).map_or("", String::as_str);
        let _ = write!(line, "{cell:<CELL$}");
        if c + 1 < columns {
            let _ = write!(line, "{:BETWEEN$}", "");
        }
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// The line of an exchange: what crosses, and which way.
fn crossing(plan: &Plan, slot: usize, readers: usize, text: &mut String) {
    let slot = &plan.slots[slot];
    let arrow = if readers > 1 {
        "◄───────┼───────►"
    } else {
        "◄────────────────"
    };
    let label = format!("reads {} of column 1", slot.shape);
    let other = if readers > 1 {
        format!("reads {} of column 0", slot.shape)
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "{}",
        format!("{label:>CELL$} {arrow:^20} {other}").trim_end()
    );
}

fn cell(plan: &Plan, layer: &str, step: &Step) -> String {
    let shape = plan.slots[step.output()].shape.to_string();
    let what = match step {
        Step::Conv { op, .. } => format!(
            "{}×{}×{}{}{}",
            op.window.size,
            op.window.size,
            op.parts * op.input.maps,
            window(op.window),
            activation(op.activation)
        ),
        Step::Linear { op, .. } => format!(
            "{} → {}{}",
            op.parts * op.input.len(),
            op.outputs,
            activation(op.activation)
        ),
        Step::Activation { activation: a, .. } => {
            activation(Some(*a)).trim_start_matches(", ").to_string()
        }
        Step::Lrn { op, .. } => format!(
            "LRN over {} maps{}",
            op.size,
            if op.parts > 1 { " of all" } else { "" }
        ),
        Step::LocalNorm { op, .. } => format!("normalise {0}×{0} pixels", op.size),
        Step::Pool { op, .. } => format!("max {}", pool(op.window)),
        Step::LrnPool { lrn, pool: p, .. } => {
            format!("LRN over {} maps, max {}", lrn.size, pool(p.window))
        }
        Step::Copy { .. } => "copy".into(),
        Step::Dropout { op, .. } => format!("dropout {}", op.rate),
    };
    let name = if matches!(step, Step::Conv { .. } | Step::Linear { .. }) {
        layer
    } else {
        ""
    };
    format!("{name:<7}{shape:<11} {what}")
}

fn window(window: Window) -> String {
    let stride = if window.stride > 1 {
        format!(" /{}", window.stride)
    } else {
        String::new()
    };
    let pad = if window.pad > 0 {
        format!(" +{}", window.pad)
    } else {
        String::new()
    };
    stride + &pad
}

fn pool(window: Window) -> String {
    format!("{0}×{0} /{1}", window.size, window.stride)
}

fn activation(activation: Option<Activation>) -> String {
    match activation {
        Some(Activation::Relu) => ", ReLU".into(),
        Some(Activation::Tanh) => ", tanh".into(),
        None => String::new(),
    }
}

/// Per layer: parameters, multiply-adds, and the bytes that cross before it.
fn costs(plan: &Plan, text: &mut String) {
    let _ = writeln!(
        text,
        "{:<7} {:>22} {:>12} {:>20} {:>14}",
        "layer", "weights", "parameters", "multiply-adds/image", "bytes crossing"
    );
    let mut crossing = 0;
    for stage in &plan.stages {
        match stage {
            Stage::Exchange { slot, readers } => {
                crossing +=
                    plan.slots[*slot].shape.len() * readers * (plan.columns - 1) * plan.batch * 4
            }
            Stage::Compute { steps, .. } => {
                if let Step::Conv { param, .. } | Step::Linear { param, .. } = steps[0] {
                    let p = &plan.params[param];
                    let shape: Vec<String> =
                        p.weight_shape().iter().map(ToString::to_string).collect();
                    let _ = writeln!(
                        text,
                        "{:<7} {:>22} {:>12} {:>20} {:>14}",
                        p.name,
                        shape.join("×"),
                        grouped(p.elements()),
                        grouped(p.multiply_adds()),
                        grouped(crossing)
                    );
                    crossing = 0;
                }
            }
        }
    }
    let _ = writeln!(
        text,
        "{:<7} {:>22} {:>12} {:>20} {:>14}\n",
        "total",
        "",
        grouped(plan.parameters()),
        grouped(plan.multiply_adds()),
        grouped(plan.exchanged_bytes(plan.batch))
    );
}

fn totals(plan: &Plan, text: &mut String) {
    let batch = plan.batch;
    if plan.columns > 1 {
        let _ = writeln!(
            text,
            "A step of batch {batch} in f32 moves {} bytes between the columns forward, and as many\n\
             backward, where they are on two devices.\n",
            grouped(plan.exchanged_bytes(batch))
        );
    }
    let columns: Vec<[usize; 5]> = (0..plan.columns).map(|c| memory(plan, c)).collect();
    let cells = |text: &mut String, name: &str, cell: &dyn Fn(usize) -> String| {
        let cells: String = (0..plan.columns)
            .map(|c| format!(" {:>12}", cell(c)))
            .collect();
        let _ = writeln!(text, "{name:<34}{cells}");
    };
    let title = format!("memory at batch {batch} in f32");
    cells(text, &title, &|c| format!("column {c}"));
    for (i, name) in [
        "weights and biases",
        "their momentum",
        "maps",
        "gradients of maps",
        "exchanged maps and gradients",
    ]
    .into_iter()
    .enumerate()
    {
        cells(text, name, &|c| mib(columns[c][i]));
    }
    cells(text, "total", &|c| mib(columns[c].iter().sum()));
    let _ = writeln!(
        text,
        "Besides: gradients of weights where a device cannot fold them into the update, the\n\
         devices' work space, two batches of 8-bit images."
    );
}

/// Bytes a column needs: parameters, momentum, maps, gradients of maps, exchange.
pub fn memory(plan: &Plan, column: usize) -> [usize; 5] {
    let shares = plan
        .params
        .iter()
        .filter(|p| column < p.columns)
        .map(|p| p.elements() / p.columns);
    let weights = 4 * shares.sum::<usize>();
    let maps = plan
        .slots
        .iter()
        .filter(|s| column < s.columns)
        .map(|s| 4 * s.shape.len() * plan.batch)
        .sum();
    let gradients = plan.gradient_buffers(column).iter().map(|n| 4 * n).sum();
    let exchange = 4 * exchange_elements(plan, column);
    [weights, weights, maps, gradients, exchange]
}

/// Elements of a column's inboxes, outboxes and return boxes.
fn exchange_elements(plan: &Plan, column: usize) -> usize {
    let boxes = plan.stages.iter().map(|stage| match *stage {
        Stage::Exchange { slot, readers } => {
            let reads = if column < readers { 2 } else { 0 };
            let is_read = usize::from((0..readers).any(|r| r != column));
            (reads + is_read) * plan.slots[slot].shape.len() * plan.batch
        }
        Stage::Compute { .. } => 0,
    });
    boxes.sum()
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// 60965224 as "60,965,224".
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
