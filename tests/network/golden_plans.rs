//! The text of plans, held in `tests/golden`. `UPDATE_GOLDEN=1` writes it anew.

use alexnet_mp::config::Config;
use alexnet_mp::network::describe::{describe, difference};
use std::path::Path;

#[track_caller]
fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let text = format!("{}\n", text.trim_end());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (number, (found, expected)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(found, expected, "{name}, line {}", number + 1);
    }
    assert_eq!(text, golden, "{name}");
}

#[test]
fn plans_read_as_their_golden_files() {
    for preset in ["paper", "quickstart", "source-145-half"] {
        let plan = Config::load(preset, &[]).unwrap().plan().unwrap();
        assert_golden(&format!("plan-{preset}.txt"), &describe(&plan));
    }
}

#[test]
fn the_difference_of_two_presets_reads_as_its_golden_file() {
    let table = |name| toml::Table::try_from(Config::load(name, &[]).unwrap()).unwrap();
    let text = difference("paper", &table("paper"), "source-145", &table("source-145"));
    assert_golden("plan-paper-source-145.txt", &text);
}

#[test]
fn no_line_is_wider_than_a_terminal_can_be_expected_to_be() {
    for (preset, _) in alexnet_mp::config::PRESETS {
        let plan = Config::load(preset, &[]).unwrap().plan().unwrap();
        for line in describe(&plan).lines() {
            assert!(line.chars().count() <= 120, "{preset}: {line}");
        }
    }
}
