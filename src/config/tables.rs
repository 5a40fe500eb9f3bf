//! Where a configuration's values come from: presets, files that name their base, overrides.

use super::PRESETS;
use crate::error::{Result, usage};
use std::path::Path;
use toml::{Table, Value};

pub(super) fn preset(name: &str) -> Option<&'static str> {
    PRESETS
        .iter()
        .find(|(preset, _)| *preset == name)
        .map(|(_, text)| *text)
}

pub(super) fn parse(text: &str, origin: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|e| {
        let line = e
            .span()
            .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        usage(format!(
            "configuration {origin}, line {line}: {}",
            one_line(e.message())
        ))
    })
}

pub(super) fn one_line(message: &str) -> String {
    message.trim().replace('\n', " ")
}

/// Files of which each names the next as its `base`, at most: longer chains are circles.
const BASES: usize = 8;

pub(super) fn from_file(path: &Path, bases: usize) -> Result<Table> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| {
        let names = PRESETS.map(|(name, _)| name).join(", ");
        let hint = nearest(&name, PRESETS.iter().map(|p| p.0)).map_or(String::new(), |n| format!(" (did you mean \"{n}\"?)"));
        usage(format!("--config {name}: no preset of that name{hint} and not readable as a file ({e}); presets: {names}"))
    })?;
    let mut own = parse(&text, &name)?;
    let base = match own.remove("base") {
        None => "paper".to_string(),
        Some(Value::String(base)) => base,
        Some(other) => {
            return Err(usage(format!(
                "configuration {name}: base = {other} is no name of a preset or file"
            )));
        }
    };
    let mut table = match preset(&base) {
        Some(text) => parse(text, &base)?,
        None if base.ends_with(".toml") && bases < BASES => {
            from_file(&path.with_file_name(&base), bases + 1)?
        }
        None if base.ends_with(".toml") => {
            return Err(usage(format!(
                "configuration {name}: base = \"{base}\": more than {BASES} files name one another as their base"
            )));
        }
        None => {
            let hint = nearest(&base, PRESETS.iter().map(|p| p.0)).unwrap_or("paper");
            return Err(usage(format!(
                "configuration {name}: base = \"{base}\" is not a preset; did you mean \"{hint}\"?"
            )));
        }
    };
    merge(&mut table, own, "")?;
    Ok(table)
}

/// Replaces values of `base` by those of `own`; every key of `own` must be one of `base`.
fn merge(base: &mut Table, own: Table, prefix: &str) -> Result<()> {
    for (key, value) in own {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        check_key(base, &key, &path)?;
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(own)) => merge(base, own, &path)?,
            (Some(Value::Table(_)), other) => {
                return Err(usage(format!("{path} is a table, found {other}")));
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
    Ok(())
}

fn check_key(table: &Table, key: &str, path: &str) -> Result<()> {
    if table.contains_key(key) {
        return Ok(());
    }
    let prefix = path.strip_suffix(key).unwrap_or_default();
    let hint = match nearest(key, table.keys().map(String::as_str)) {
        Some(near) => format!("did you mean \"{prefix}{near}\"?"),
        None => format!(
            "valid: {}",
            table.keys().cloned().collect::<Vec<_>>().join(", ")
        ),
    };
    Err(usage(format!(
        "unknown configuration key \"{path}\"; {hint}"
    )))
}

/// Applies `section.key=value`; the value is TOML, or else a string.
pub(super) fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let (path, text) = assignment.split_once('=').ok_or_else(|| {
        usage(format!(
            "--set {assignment}: expected section.key=value, such as train.batch=64"
        ))
    })?;
    let (path, text) = (path.trim(), text.trim());
    let value = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"));
    let value = value.unwrap_or_else(|| Value::String(text.into()));
    let mut own = Table::new();
    let mut keys = path.rsplit('.');
    own.insert(keys.next().unwrap_or_default().into(), value);
    for key in keys {
        own = Table::from_iter([(key.to_string(), Value::Table(own))]);
    }
    merge(table, own, "")
}

/// The candidate most like `name`, if one is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(name, candidate),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
